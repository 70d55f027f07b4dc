"""What a conversion could not carry over."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 20


@dataclass(frozen=True)
class FileLoss:
    """What the masks of one file lost.

    Attributes:
        name: the sample.
        masks: how many masks it had.
        holes: masks that lost a hole.
        pieces: masks whose separate pieces were joined or dropped.
        dropped: masks that are not in the file at all (crowds, empty or wholly covered ones).
        area_before: pixels of all its masks.
        area_changed: pixels that are in a mask before and not after, or after and not before.
        classes: whether classes were lost.
    """

    name: str
    masks: int
    holes: int = 0
    pieces: int = 0
    dropped: int = 0
    area_before: int = 0
    area_changed: int = 0
    classes: bool = False

    def __bool__(self) -> bool:
        """Whether anything was lost."""
        return bool(self.holes or self.pieces or self.dropped or self.area_changed or self.classes)

    def line(self) -> str:
        """The loss in words."""
        share = 100 * self.area_changed / max(self.area_before, 1)
        parts = [
            f"{count} of {self.masks} masks {what}"
            for count, what in (
                (self.holes, "lost holes"),
                (self.pieces, "had pieces joined or lost"),
                (self.dropped, "left out"),
            )
            if count
        ]
        parts += [f"area changed by {self.area_changed} px ({share:.2g} %)"] if self.area_changed else []
        parts += ["classes lost"] if self.classes else []
        return f"{self.name}: {', '.join(parts) or 'nothing lost'}"


@dataclass
class ConversionReport:
    """What a conversion did.

    Attributes:
        format: the format written.
        images: images written.
        instances: masks they had before.
        losses: the files that lost something.
        failed: (name, reason) of the images that could not be read or written.
        without_image: samples whose image was not found, so that only their labels were written.
    """

    format: str
    images: int = 0
    instances: int = 0
    losses: list[FileLoss] = field(default_factory=list, repr=False)
    failed: list[tuple[str, str]] = field(default_factory=list)
    without_image: int = 0

    def add(self, loss: FileLoss) -> None:
        """Count one image written."""
        self.images += 1
        self.instances += loss.masks
        if loss:
            self.losses.append(loss)

    @property
    def lossless(self) -> bool:
        """Whether every mask came over as it was."""
        return not self.losses and not self.failed

    def lines(self, shown: int = SHOWN) -> list[str]:
        """The report in words: one line for the whole, one for each of the first files that lost something."""
        head = f"{self.format}: {self.images} images, {self.instances} masks"
        lines = [f"{head}, nothing lost" if self.lossless else head]
        if self.without_image:
            lines.append(f"{self.without_image} images were not found and are not in the folder")
        if self.losses:
            total = FileLoss(
                f"lost in {len(self.losses)} files",
                masks=self.instances,
                holes=sum(loss.holes for loss in self.losses),
                pieces=sum(loss.pieces for loss in self.losses),
                dropped=sum(loss.dropped for loss in self.losses),
                area_before=sum(loss.area_before for loss in self.losses),
                area_changed=sum(loss.area_changed for loss in self.losses),
                classes=any(loss.classes for loss in self.losses),
            )
            lines.append(total.line())
            lines += [f"  {loss.line()}" for loss in self.losses[:shown]]
            lines += [f"  ... and {len(self.losses) - shown} files more"] if len(self.losses) > shown else []
        lines += [f"failed: {name}: {reason}" for name, reason in self.failed[:shown]]
        lines += [f"... and {len(self.failed) - shown} more failed"] if len(self.failed) > shown else []
        return lines
