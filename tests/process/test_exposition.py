"""A server's counters of speculation, as it tells Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bench.load.job import Endpoint
from bench.process import exposition

_LLAMA = """\
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 40
llamacpp:spec_decode_num_draft_tokens_total 30
llamacpp:spec_decode_num_accepted_tokens_total 12
llamacpp:spec_decode_num_drafts_total 10
llamacpp:requests_processing 0
# TYPE llamacpp:spec_decode_num_accepted_tokens_per_pos_total counter
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 6
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 4
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="2"} 2
llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="3"} 0
"""
_VLLM = """\
vllm:generation_tokens_total{engine="0",model_name="model"} 40.0
vllm:spec_decode_num_drafts_total{engine="0",model_name="model"} 10.0
vllm:spec_decode_num_drafts_created{engine="0",model_name="model"} 1.7e+09
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="model"} 30.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="model"} 12.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="model",position="0"} 6.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="model",position="1"} 4.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="model",position="2"} 2.0
"""
_COUNTS = {
    "drafts": 10,
    "draft_tokens": 30,
    "accepted_tokens": 12,
    "generated_tokens": 40,
    "accepted_histogram": [4, 2, 2, 2],
}


def test_both_servers_counters_are_read_alike() -> None:
    """A histogram from how many drafts had so many tokens accepted at the least."""
    assert exposition.speculation({}, exposition.parse(_LLAMA)) == _COUNTS
    assert exposition.speculation({}, exposition.parse(_VLLM)) == _COUNTS


def test_what_was_counted_before_the_load_is_not_its() -> None:
    """The same counters before and after are of no draft."""
    samples = exposition.parse(_VLLM)

    assert exposition.speculation(samples, samples) == {
        "drafts": 0,
        "draft_tokens": 0,
        "accepted_tokens": 0,
        "generated_tokens": 0,
        "accepted_histogram": [0],
    }
    assert exposition.speculation({}, {"generation_tokens_total": 5.0}) == {}


def test_counters_are_read_once_they_rest() -> None:
    """A server that still counts is read again until two readings are the same; one that tells nothing has none."""
    texts = iter(["vllm:spec_decode_num_drafts_total 8.0\n", _VLLM, _VLLM])
    with _server(texts) as endpoint:
        assert exposition.speculation({}, exposition.read(endpoint)) == _COUNTS
        assert next(texts, None) is None
    assert exposition.read(endpoint) == {}


@contextmanager
def _server(texts: Iterator[str]) -> Iterator[Endpoint]:
    """A server that answers with the texts, one after the other."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = next(texts).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Endpoint(f"http://127.0.0.1:{server.server_address[1]}", "m")
    finally:
        server.shutdown()
        server.server_close()
