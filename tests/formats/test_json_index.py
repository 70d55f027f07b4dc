from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pixelkin.formats import SourceError
from pixelkin.formats.json_index import read_records, walk_records

text = st.text('ab"\\{}[],:é\n', max_size=6)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(text, values, max_size=3)
files = st.dictionaries(text, values | st.lists(records, max_size=4), max_size=5) | st.lists(records, max_size=4)


@given(files, st.sampled_from([None, 1]), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_walking_finds_what_parsing_finds(tmp_path, content, indent, ascii_only):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    lists = content if isinstance(content, dict) else {"": content}
    expected = [
        (key, item)
        for key, value in lists.items()
        if isinstance(value, list)
        for item in value
        if isinstance(item, dict)
    ]
    found = list(walk_records(path))
    assert [(record.section, record.content) for record in found] == expected
    spans = [edge for record in found for edge in (record.start, record.end)]
    assert read_records(path, spans) == [item for _, item in expected]


@given(files, st.integers(0, 200))
@example({":}": []}, 4)  # ends within a string that holds the bracket
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_is_cut_off_is_noticed(tmp_path, content, length):
    whole = json.dumps(content).encode()
    if length >= len(whole):
        return
    path = tmp_path / "x.json"
    path.write_bytes(whole[:length])
    with pytest.raises(SourceError, match=r"x\.json"):
        list(walk_records(path))
