"""A judge behind a server of the test's own: asked, tried again, cached, paid for."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from slimsearch.errors import ResourceError, RunError, SettingsError
from slimsearch.evaluation import judging
from slimsearch.evaluation.judging import Grades, Judge


class Server:
    """Replies by turn: a text, or a number as a status."""

    def __init__(self, replies):
        self.replies, self.asked, self.headers = list(replies), [], []
        self.elsewhere = ""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.asked.append((self.path, json.loads(body)))
                outer.headers.append(dict(self.headers))
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                status = reply if isinstance(reply, int) else 200
                content = {"choices": [{"message": {"content": reply}}]}
                error = {"error": "temperature does not support 0" if status == 400 else "busy"}
                payload = json.dumps(content if status == 200 else error).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", outer.elsewhere)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(judging, "PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    opened = []

    def made(*replies) -> Server:
        opened.append(Server(replies))
        return opened[-1]

    yield made
    for one in opened:
        one.http.shutdown()
        one.http.server_close()


def number(reply: str):
    return {"grade": float(reply), "count": 1.0} if reply.replace(".", "").isdigit() else None


def test_it_is_asked_as_openai_is(server, monkeypatch):
    there = server("0.5")
    monkeypatch.setenv("MY_KEY", "secret")
    assert Judge(there.url, "gpt", "MY_KEY").say("How good?", 0.0) == "0.5"
    path, body = there.asked[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "gpt"
    assert body["messages"] == [{"role": "user", "content": "How good?"}]
    assert there.headers[0]["Authorization"] == "Bearer secret"


def test_without_a_key_none_is_sent(server):
    there = server("0.5")
    Judge(there.url, "gpt").say("How good?", 0.0)
    assert "Authorization" not in there.headers[0]


def test_a_busy_server_is_tried_again(server):
    there = server(429, 503, "0.5")
    assert Judge(there.url, "gpt").say("How good?", 0.0) == "0.5"
    assert len(there.asked) == 3


def test_a_refusal_is_not(server):
    there = server(401)
    with pytest.raises(ResourceError, match=r"refuses: 401 .*Check --judge, --judge-model and"):
        Judge(there.url, "gpt").say("How good?", 0.0)
    assert len(there.asked) == 1


def test_the_key_goes_nowhere_else(server, monkeypatch):
    there, elsewhere = server(302), server("1.0")
    there.elsewhere = elsewhere.url
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with pytest.raises(ResourceError, match="refuses: 302"):
        Judge(there.url, "gpt").say("How good?", 0.0)
    assert elsewhere.asked == []


def test_a_model_of_one_temperature_is_asked_without(server):
    there = server(400, "0.5")
    assert Judge(there.url, "gpt").say("How good?", 0.0) == "0.5"
    assert ["temperature" in body for _, body in there.asked] == [True, False]
    with pytest.raises(ResourceError, match="refuses: 400"):
        Judge(server(400).url, "gpt").say("How good?", 0.0)


def test_it_gives_up_after_some_tries(server):
    there = server(500)
    with pytest.raises(ResourceError, match=r"did not answer in 5 tries \(500 .*is kept"):
        Judge(there.url, "gpt").say("How good?", 0.0)
    assert len(there.asked) == judging.TRIES


def test_grades_are_cached_and_survive_a_kill(server, tmp_path):
    there, file = server("0.5", "0.25"), tmp_path / "a" / "mmvet.grades.jsonl"
    judge = Judge(there.url, "gpt")
    grades = Grades(file, judge)
    assert grades.missing(["one", "two"], number) == ["one", "two"]
    assert grades.of("one", number) == {"grade": 0.5, "count": 1.0}
    file.write_bytes(file.read_bytes() + b'{"key": "torn')
    again = Grades(file, judge)
    assert again.missing(["one", "two"], number) == ["two"]
    assert again.of("one", number) == {"grade": 0.5, "count": 1.0}
    assert again.of("two", number) == {"grade": 0.25, "count": 1.0}
    assert len(there.asked) == 2
    assert Grades(file, Judge(there.url, "other")).missing(["one"], number) == ["one"]


def test_a_reply_without_a_grade_is_asked_for_again(server, tmp_path):
    there = server("Well,", "I think", "0.75")
    grades = Grades(tmp_path / "g.jsonl", Judge(there.url, "gpt"))
    assert grades.of("one", number) == {"grade": 0.75, "count": 1.0}
    assert [body["temperature"] for _, body in there.asked] == [0.0, 0.5, 1.0]
    there.replies = ["no grade", "no grade", "no grade", "0.5"]
    assert grades.of("two", number) is None
    later = Grades(tmp_path / "g.jsonl", Judge(there.url, "gpt"))
    assert later.missing(["one", "two"], number) == ["two"]
    assert later.of("two", number) == {"grade": 0.5, "count": 1.0}
    (tmp_path / "g.jsonl").write_text('{"id": 1}\n', "utf-8")
    with pytest.raises(RunError, match="lines that are no grades"):
        Grades(tmp_path / "g.jsonl", Judge(there.url, "gpt"))


def test_the_cost_is_told():
    judge = Judge("http://here/v1", "gpt", price=(2.0, 10.0))
    said = judge.estimate(["x" * 4000] * 3, 2)
    assert "asked 3 times (2 grades are cached): about 3000 tokens to read" in said
    assert f"about {(3000 * 2 + 3 * judging.REPLY_TOKENS * 10) / 1e6:.2f} at 2 and 10" in said
    assert "--judge-price" in Judge("http://here/v1", "gpt").estimate(["x"], 0)


def test_what_is_no_judge_is_refused():
    with pytest.raises(SettingsError, match="--judge gpt-4 is no address"):
        Judge("gpt-4", "gpt").check()
    with pytest.raises(SettingsError, match="--judge-model"):
        Judge("http://localhost:8000/v1", "").check()
    for price in ((-1.0, 2.0), (1.0, float("nan"))):
        with pytest.raises(SettingsError, match="no less than 0"):
            Judge("http://localhost:8000/v1", "gpt", price=price).check()
