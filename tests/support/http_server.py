"""The one HTTP server of the tests, at 127.0.0.1, with the interface of pytest-httpserver (`expect_request(...).respond_with_...`, `url_for`, `log`).

pytest-httpserver itself cannot play a hostile one: werkzeug below it mends wrong lengths and refuses to send broken redirects, and 27
of the tests need both.
Beyond that it says what no friendly server says: bodies that are shorter than announced, that never end, that drip.
"""

import json
import re
from types import SimpleNamespace

from xrt_nb._standins import Server


class Response:
    "What is answered: a body of bytes or an iterator of pieces, a status, headers."

    def __init__(self, response=b"", status=200, headers=None):
        body = response.encode() if isinstance(response, str) else response
        self.data, self.status, self.headers = body, status, dict(headers or {})


class RequestHandler:
    "What is to be answered at an address."

    def __init__(self, uri): self.uri, self.handler = uri, None

    def matches(self, path): return self.uri.fullmatch(path) if isinstance(self.uri, re.Pattern) else self.uri == path

    def respond_with_handler(self, handler): self.handler = handler

    def respond_with_data(self, response_data="", status=200, headers=None): self.handler = lambda _: Response(response_data, status, headers)

    def respond_with_json(self, response_json, status=200): self.respond_with_data(json.dumps(response_json), status, {"Content-Type": "application/json"})


class HTTPServer(Server):
    "A server whose answers are ordered by a test."

    def __init__(self):
        super().__init__(self.dispatch)
        self.handlers, self.log = [], []

    def expect_request(self, uri):
        "The newest expectation for an address holds."
        self.handlers.insert(0, RequestHandler(uri))
        return self.handlers[0]

    def clear(self): self.handlers, self.log = [], []

    def url_for(self, suffix): return self.url + suffix

    def dispatch(self, asked):
        request = SimpleNamespace(method=asked.method, path=asked.path, query_string=asked.query.encode(), headers=asked.headers, data=asked.data, host=asked.headers["Host"])
        handler = next((h.handler for h in self.handlers if h.matches(asked.path)), None)
        response = Response("No handler found for this request", 500) if handler is None else handler(request)
        if not isinstance(response, Response): response = Response(response)
        self.log.append((request, response))
        return response.status, response.headers, response.data


class Script:
    "A server that answers each address step by step; the last step repeats. A step: status, headers, body and what goes wrong, or a function of the request."

    def __init__(self, httpserver, gone):
        self.server, self.script, self.visits, self.gone, self.url = httpserver, {}, [], gone, httpserver.url
        httpserver.expect_request(re.compile(".*")).respond_with_handler(self.answer)

    def answer(self, request):
        told = request.data.decode() or request.query_string.decode()
        self.visits.append((request.method, request.host.split(":")[0], request.path, told))
        steps = self.script[request.path]
        step = steps[min(sum(v[2] == request.path for v in self.visits), len(steps)) - 1]
        status, headers, body, *fault = step(request) if callable(step) else step
        if "slow" in fault: self.gone.wait(5)
        return Response(body, status, {"Content-Length": str(len(body) + 40 * ("short" in fault))} | headers)
