#!/usr/bin/env python3
"""Records what the stock `docker` client makes of command lines, as fixtures for the tests beside this file.

A small HTTP server on a unix socket plays the engine. `create_cases.txt` holds one command line each (shell words;
`create` or `run`, flags, image); the answer file holds for each either the body that the client sent (for all but the
first only what differs from the first) or its exit status and message. `format_cases.json` holds answers of an engine and command lines with `--format`; the answer file holds
what the client printed.

    python3 tests/record_docker.py      (in src/cli; needs a `docker` client, no daemon)
"""
import json
import os
import shlex
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler

HERE = os.path.dirname(os.path.abspath(__file__))
CWD = os.path.dirname(HERE)
ID = "c0ffee0000001111222233334444555566667777888899990000aaaabbbbcccc"
last = {}
answers = {}


class Engine(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def reply(self, status, body):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode() if length else ""
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            body = ""
            while True:
                size = int(self.rfile.readline().strip() or b"0", 16)
                chunk = self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
                body += chunk.decode()
        path = self.path.split("?")[0]
        if path.startswith("/v"):
            path = path[path.index("/", 1):]
        if path == "/_ping":
            return self.reply(200, "OK")
        if path == "/containers/create":
            last["query"] = self.path.partition("?")[2]
            last["body"] = json.loads(body)
            return self.reply(201, {"Id": ID, "Warnings": None})
        if path in answers:
            return self.reply(200, answers[path])
        return self.reply(404, {"message": "no such object: " + path})

    do_GET = do_POST = do_HEAD = do_DELETE = answer


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("local", 0)


def docker(args, host, config):
    env = {"PATH": os.environ["PATH"], "HOME": config, "DOCKER_HOST": "unix://" + host, "DOCKER_CONFIG": config,
           "SBX_TEST_SET": "from environment", "SBX_TEST_EMPTY": "", "DOCKER_BUILDKIT": "0", "TZ": "UTC"}
    return subprocess.run(["docker"] + args, cwd=CWD, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def changes(plain, body):
    """The members of a body that differ from the plain one's; a member that it does not have is null."""
    found = {}
    for key in sorted(set(plain) | set(body)):
        if plain.get(key) == body.get(key):
            continue
        if key == "HostConfig":
            found[key] = changes(plain[key], body[key])
        else:
            found[key] = body.get(key)
    return found


def record_create(host, config):
    out = []
    for line in open(os.path.join(HERE, "create_cases.txt")):
        line = line.rstrip("\n")
        if not line or line.startswith("#"):
            continue
        args = shlex.split(line)
        last.clear()
        done = docker(args, host, config)
        entry = {"args": args}
        if "body" in last:
            entry["query"] = last["query"]
            entry["body"] = last["body"]
        else:
            entry["status"] = done.returncode
            entry["stderr"] = done.stderr
        text = json.dumps(entry).replace(json.dumps(CWD)[1:-1], "@CWD@")
        text = text.replace(json.dumps(os.path.dirname(CWD))[1:-1], "@PARENT@").replace(os.path.dirname(host), "@TMP@")
        out.append(json.loads(text))
    plain = out[0]["body"]
    for entry in out[1:]:
        if "body" in entry:
            entry["changes"] = changes(plain, entry.pop("body"))
    with open(os.path.join(HERE, "create_golden.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(e, ensure_ascii=False) for e in out) + "\n]\n")
    return len(out)


def record_usage(host, config):
    out = []
    for line in open(os.path.join(HERE, "usage_cases.txt")):
        args = shlex.split(line)
        done = docker(args, host, config)
        out.append({"args": args, "status": done.returncode, "stdout": done.stdout, "stderr": done.stderr})
    with open(os.path.join(HERE, "usage_golden.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(e, ensure_ascii=False) for e in out) + "\n]\n")
    return len(out)


def record_format(host, config):
    path = os.path.join(HERE, "format_cases.json")
    if not os.path.exists(path):
        return 0
    cases = json.load(open(path))
    answers.update(cases["answers"])
    out = []
    for args in cases["commands"]:
        done = docker(args, host, config)
        out.append({"args": args, "status": done.returncode, "stdout": done.stdout, "stderr": done.stderr})
    with open(os.path.join(HERE, "format_golden.json"), "w") as f:
        lines = ",\n".join(json.dumps(e, ensure_ascii=False) for e in out)
        f.write('{"now": %d, "cases": [\n%s\n]}\n' % (time.time(), lines))
    return len(out)


def main():
    with tempfile.TemporaryDirectory() as home:
        host = os.path.join(home, "engine.sock")
        server = Server(host, Engine)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if len(sys.argv) > 1:
            done = docker(sys.argv[1:], host, home)
            sys.stdout.write(done.stdout)
            sys.stderr.write(done.stderr)
            print("rc", done.returncode, json.dumps(last.get("body")))
        else:
            print(record_create(host, home), "create", record_format(host, home), "format", record_usage(host, home), "usage")
        server.shutdown()


main()
