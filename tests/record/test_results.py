"""Result files: found again, resumed after a kill, refused where they are damaged."""

import json

import pytest

from slimsearch.errors import RunError
from slimsearch.record import results


def test_a_finished_result_is_found_with_its_lines(tmp_path):
    file = tmp_path / "champion" / "pope.json"
    results.write(file, {"task": "pope", "finished": False})
    assert results.all_in(tmp_path) == []
    results.write(file, {"task": "pope", "finished": True})
    results.write_lines(file.with_suffix(".jsonl"), [{"id": "1", "answer": "yes"}])
    (tmp_path / "champion" / "pope.submission.json").write_text('[{"question_id": 1}]', "utf-8")
    (found,) = results.all_in(tmp_path)
    assert (found["task"], found["file"]) == ("pope", str(file))
    assert results.lines_of(found) == [{"id": "1", "answer": "yes"}]


def test_a_torn_line_is_cut_before_the_next_is_added(tmp_path):
    log = tmp_path / "pope.jsonl"
    results.append_lines(log, [{"id": "1"}, {"id": "2"}])
    log.write_bytes(log.read_bytes() + b'{"id":"3","ans')
    assert results.read_lines(log) == [{"id": "1"}, {"id": "2"}]
    results.cut_torn(log)
    results.append_lines(log, [{"id": "3"}])
    assert [line["id"] for line in results.read_lines(log)] == ["1", "2", "3"]


def test_a_damaged_line_is_named(tmp_path):
    log = tmp_path / "pope.jsonl"
    log.write_text('{"id":"1"}\n{"id\n{"id":"3"}\n', "utf-8")
    with pytest.raises(RunError, match=r"pope\.jsonl, line 2 is damaged"):
        results.read_lines(log)


def test_another_programs_file_is_not_overwritten(tmp_path):
    file = tmp_path / "pope.json"
    file.write_text(json.dumps({"accuracy": 1}), "utf-8")
    with pytest.raises(RunError, match="no result of this slimsearch"):
        results.read(file)
    file.write_text("{", "utf-8")
    with pytest.raises(RunError, match="no readable JSON"):
        results.read(file)
    assert results.read(tmp_path / "other.json") is None
