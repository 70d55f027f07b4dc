"""The processes of one training and the device each computes on."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from accelerate.state import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The torch device of a name: ``auto`` (cuda, else mps, else cpu), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        ValueError: an unknown name, or a device this machine does not have.
    """
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device {device!r} is not known: choose auto, cpu, cuda or mps") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: no usable GPU is here: use --device cpu or auto")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device}: this machine has {torch.cuda.device_count()} GPUs: choose a lower number")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps: not available here: use --device cpu or auto")
    if found.type == "cuda" and found.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return found


def _connected() -> bool:
    return bool(dist.is_available() and dist.is_initialized())


def _disconnect() -> None:
    """Leave the group before the interpreter ends, as torch asks for.

    Its threads go with it unless something still holds the group. Where the interpreter ends under them C++ may abort
    the process: all work is done, but the exit code is -6 and the launcher takes the training for failed.
    """
    if _connected():
        dist.destroy_process_group()


class Team:
    """The processes that train together: one, or those ``accelerate launch`` started.

    Each has a ``device``, a ``rank`` below ``size``; rank 0 is ``main`` and the only one that writes. The methods that
    exchange something must be called by all processes at the same point; alone they cost nothing.

    Raises:
        ValueError: a device that is not here, or not the one the processes were launched for.
    """

    def __init__(self, device: str | torch.device = "auto") -> None:
        wanted = str(device) if str(device) != "auto" else resolve_device().type
        ours = not _connected()
        state = PartialState(cpu=wanted == "cpu")
        if ours and _connected():
            atexit.register(_disconnect)
        self.rank = int(state.process_index)
        self.size = int(state.num_processes)
        self.main = self.rank == 0
        if self.size != int(os.environ.get("WORLD_SIZE", "1")):
            raise ValueError(
                f"the processes cannot reach each other for device {device}: give all of them --device cpu"
            )
        self.device = torch.device(state.device) if self.size > 1 else resolve_device(device)
        if torch.device(wanted).type != self.device.type:
            raise ValueError(f"the processes were launched for {self.device.type}, not {wanted}: use --device auto")

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            PartialState().wait_for_everyone()

    def maximum(self, *values: float) -> list[float]:
        """For each value, the highest of all processes."""
        if self.size == 1:
            return list(values)
        return [float(v) for v in reduce(torch.tensor(values, dtype=torch.float64, device=self.device), "max").tolist()]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        return values if self.size == 1 else reduce(values, "mean")

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace the gradients by their mean over the processes; one that got none anywhere stays without.

        One flat exchange after the backward pass: unlike a wrapped module it leaves the loss free to call any method of
        the model and to use any part of it, and what is learned does not depend on how gradients are bucketed.
        """
        if self.size == 1:
            return
        wanted = list(parameters)
        here = self.maximum(*(parameter.grad is not None for parameter in wanted))
        used = [parameter for parameter, any_grad in zip(wanted, here, strict=True) if any_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
        mean = self.mean(torch.cat([gradient.float().flatten() for gradient in gradients]))
        for parameter, part in zip(used, torch.split(mean, [p.numel() for p in used]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors in place with those of the main process."""
        if self.size > 1:
            for tensor in tensors:
                sent = tensor.contiguous()
                broadcast(sent)
                tensor.copy_(sent)
