"""As much of a Kubernetes API as dask-kubernetes asks for, whose pods never run."""

import gc
import json
import re
import sys
import threading
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

IMAGE = {"reason": "ErrImagePull", "message": 'rpc error: code = NotFound: "registry.lab/no:1"'}
NODES = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient memory.",
}  # fmt: skip
WITHOUT_IMAGE = {
    "phase": "Pending",
    "conditions": [{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}],
    "containerStatuses": [{"name": "scheduler", "ready": False, "state": {"waiting": IMAGE}}],
}
WITHOUT_NODE = {"phase": "Pending", "conditions": [NODES]}

CORE = {"pods": "Pod", "services": "Service"}
OPERATORS = {
    "daskclusters": "DaskCluster",
    "daskworkergroups": "DaskWorkerGroup",
    "daskautoscalers": "DaskAutoscaler",
}


class Api(BaseHTTPRequestHandler):
    """Answers for one cluster at a time; with an operator that makes one pod of it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        state, path = self.server.state, self.path.partition("?")[0].rstrip("/")
        state.asked.append(f"GET {path}")
        pod, clusters = state.pod, state.clusters
        groups = ["kubernetes.dask.org/v1"] if state.has_operator else []
        if path == "/version":
            self.says({"gitVersion": "v1.33.0", "major": "1", "minor": "33"})
        elif path == "/api":
            self.says({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            told = []
            for group in groups:
                version = {"groupVersion": group, "version": "v1"}
                name = group.partition("/")[0]
                told.append({"name": name, "versions": [version], "preferredVersion": version})
            self.says({"kind": "APIGroupList", "groups": told})
        elif path in ("/api/v1", *(f"/apis/{name}" for name in groups)):
            kinds = CORE if path == "/api/v1" else OPERATORS
            told = [
                {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": True}
                for name, kind in kinds.items()
            ]
            self.says({"kind": "APIResourceList", "resources": told})
        elif path.endswith("/pods"):
            is_running_asked = "status.phase%3DRunning" in self.path
            found = [pod] if pod and clusters and not is_running_asked else []
            named = [{**one, "metadata": {"name": f"{clusters[-1]}-scheduler"}} for one in found]
            self.says({"kind": "PodList", "items": named, "metadata": {}})
        elif (name := path.rpartition("/")[2]) in clusters and "/daskclusters/" in path:
            self.says({"metadata": {"name": name}, "spec": {}, "status": {"phase": "Running"}})
        elif re.search(r"/daskclusters$", path):
            wanted = re.search(r"metadata.name%3D([\w-]+)", self.path)
            items = [
                {"metadata": {"name": n}, "spec": {}, "status": {"phase": "Running"}}
                for n in clusters if wanted is None or wanted[1] == n
            ]  # fmt: skip
            self.says({"kind": "DaskClusterList", "items": items, "metadata": {}})
        else:
            self.refuses()

    def do_POST(self):
        state = self.server.state
        state.asked.append(f"POST {self.path}")
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not state.has_operator:
            self.refuses()
            return
        state.clusters.append(content["metadata"]["name"])
        self.says(content, 201)

    def do_DELETE(self):
        state = self.server.state
        state.asked.append(f"DELETE {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state.clusters.remove(self.path.rpartition("/")[2].partition("?")[0])
        self.says({"kind": "Status", "status": "Success"})

    def refuses(self):
        told = "the server could not find the requested resource"
        self.says({"kind": "Status", "status": "Failure", "message": told, "code": 404}, 404)

    def says(self, content, status=200):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class State:
    """What the API has, and what it was asked."""

    def __init__(self, pod, *, has_operator):
        self.pod, self.has_operator = pod and {"kind": "Pod", "status": pod}, has_operator
        self.clusters, self.asked = [], []


@contextmanager
def kubernetes(folder, pod, *, has_operator=True):
    """Yield an API whose pods are so, for whoever has ``folder / "kubeconfig"`` as KUBECONFIG."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # whoever asked has ended
    server.state = State(pod, has_operator=has_operator)
    write_kubeconfig(folder / "kubeconfig", f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        yield server.state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_kubeconfig(file, address, current="x"):
    """Write a configuration of one context, x."""
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": current,
        "clusters": [{"name": "x", "cluster": {"server": address}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(content), encoding="utf-8")


def collect():
    """Let go of what a class left open in its own constructor, which it warns of."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as monkeypatch:
        warnings.simplefilter("ignore", ResourceWarning)
        monkeypatch.setattr(sys, "unraisablehook", lambda _: None)  # a Gateway is closed twice
        gc.collect()
