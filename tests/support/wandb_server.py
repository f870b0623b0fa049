"""A server on this machine that answers as wandb's does when a view is saved, and keeps the view."""

import http.server
import json
import threading
from typing import Any


class Server:
    """``views``: what was saved; ``environment``: the variables by which wandb finds the server."""

    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []
        self.projects = ["adarem"]
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.environment = {
            "WANDB_BASE_URL": f"http://127.0.0.1:{self._http.server_port}",
            "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
        }

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        project = {"id": "1", "internalId": "1", "name": "adarem", "entityName": "someone"}
        if "upsertView" in query:
            self.views.append(variables)
            view = {
                "id": "Vmlldzox", "type": variables["type"], "name": variables["name"], "description": "",
                "displayName": variables["displayName"], "project": project, "spec": variables["spec"],
                "updatedAt": "2026-01-01T00:00:00Z",
            }  # fmt: skip
            return {"upsertView": {"view": view, "inserted": True}}
        if "ProjectInternalId" in query:
            return {"project": project if variables["projectName"] in self.projects else None}
        if "GetProjects" in query:
            nodes = [
                project | {"name": name, "createdAt": "", "isBenchmark": False, "user": None} for name in self.projects
            ]
            page = {"endCursor": None, "hasNextPage": False}
            return {"models": {"edges": [{"node": node} for node in nodes], "pageInfo": page}}
        return {
            "viewer": {"id": "1", "entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
        }

    def _handler(self) -> type:
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = json.loads(body) if self.path == "/graphql" else {"query": ""}
                answer = {"data": server.answer(asked["query"], asked.get("variables") or {})}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        return Handler
