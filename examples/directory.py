"""A sample API, in Python's standard library: all that an API has to do for Postgate.

docs/api/openapi.yaml describes every request and answer, directory.json has the data. To try it:

    python3 examples/directory.py --listen 127.0.0.1:8080
    curl -H 'X-Auth-Token: demo' 'http://127.0.0.1:8080/aliases?key=sales@example.org'
"""

import hmac
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

DIRECTORY = json.loads(Path(__file__).with_name("directory.json").read_text("utf-8"))
POLICY = DIRECTORY["policy"]

# Far more than the attributes of one mail, and small enough for memory.
LONGEST_BODY = 128 * 1024


def look_up(table, key):
    """A lookup: a string or a list of strings, or 404."""
    entries = DIRECTORY["tables"].get(table)
    if entries is None or not key:
        return 400, {"error": "no such table, or no key"}
    for spelling in spellings(key.lower()):
        if spelling in entries:
            return 200, entries[spelling]
    return 404, {"error": "no such entry"}


def spellings(key):
    """The keys to search for, the best first. Postfix sends only the address as it is in the mail,
    so the API handles capitals, user+extension and whole domains itself."""
    yield key
    local, at, domain = key.rpartition("@")
    if at:
        yield local.split("+")[0] + at + domain
        yield at + domain


def quota(account):
    """How much an account may send: the numbers that the rates of a limit point to. 0 and None are
    "no limit"."""
    if account in DIRECTORY["quotas"]:
        return 200, DIRECTORY["quotas"][account]
    return 404, {"error": "no such account"}


def decide(mail):
    """The action for Postfix. DUNNO lets its other rules decide; OK would skip them. A bounce has
    an empty sender."""
    if mail.get("recipient", "").lower() in POLICY["open_recipients"]:
        return 200, {"action": "DUNNO"}
    if mail.get("sender", "").lower() in POLICY["blocked_senders"]:
        return 200, {"action": "REJECT 5.7.1 Mail from this sender is not accepted"}
    if mail.get("client_address") in POLICY["greylisted_clients"]:
        return 200, {"action": "DEFER_IF_PERMIT 4.7.1 Greylisted, please try again later"}
    return 200, {"action": "DUNNO"}


def look_up_in_dict(query):
    """A key of one of Dovecot's dicts: any JSON, or 404. None would be "no such key" as well."""
    entries = DIRECTORY["dicts"].get(query.get("name"), {})
    if dict_key(query) in entries:
        return 200, entries[dict_key(query)]
    return 404, {"error": "no such key"}


def list_dict(query):
    """The keys below a path: an object of names and values. Names begin behind the path and a
    slash."""
    entries, path = DIRECTORY["dicts"].get(query.get("name"), {}), dict_key(query).rstrip("/") + "/"
    found = {key[len(path):]: value for key, value in entries.items() if key.startswith(path)}
    return (200, found) if found else (404, {"error": "no such path"})


def dict_key(query):
    """Keys of "priv" belong to a user, those of "shared" to all."""
    owner = query.get("user", "") + "/" if query.get("scope") == "priv" else ""
    return query.get("scope", "") + "/" + owner + query.get("key", "")


def log_in(body):
    """Whether a login is good, and whose it is. A real API has digests, and compares in the same
    time whether there is such a user or not. A refusal costs the user the stored password, so that
    a body that is no login is 400."""
    try:
        login = json.loads(body.decode())
        # str.encode wants text, and no half of a surrogate pair.
        name, password = (str.encode(login[field]) for field in ("username", "password"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return 400, {"error": "no JSON object with a username and a password"}
    user = name.decode().lower()
    known = DIRECTORY["passwords"].get(user, "")
    if not known or not hmac.compare_digest(known.encode(), password):
        return 200, {"accepted": False}
    return 200, {"accepted": True, "user": user}


def answer(method, target, body):
    """The status and the value of the answer to a request."""
    url = urlsplit(target)
    # Split before it is decoded: a key may hold a slash.
    parts = [unquote(part) for part in url.path.split("/")[1:]]
    if [method, *parts] == ["POST", "policy"]:
        return decide(fields(body.decode("utf-8", "replace")))
    if [method, *parts] == ["POST", "login"]:
        return log_in(body)
    if [method, *parts] == ["GET", "dict"]:
        return look_up_in_dict(fields(url.query))
    if [method, *parts] == ["GET", "dict", "list"]:
        return list_dict(fields(url.query))
    if method == "GET" and len(parts) == 1:
        return look_up(parts[0], fields(url.query).get("key"))
    if method == "GET" and len(parts) == 2:
        return quota(parts[1]) if parts[0] == "quota" else look_up(*parts)
    # Not 404, which means "no such entry": a mistyped URL would bounce mail.
    return 400, {"error": "no such route"}


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection for the next request
    timeout = 60  # seconds until an idle connection is closed: more than Postgate's pool-idle
    disable_nagle_algorithm = True

    def do_GET(self):
        """Answers only those who know the token."""
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch("[0-9]{1,6}", length) or int(length) > LONGEST_BODY:
            self.close_connection = True
            self.reply(400, {"error": "the body is too long, or its length is no number"})
            return
        # Unread, it would be taken for the next request.
        body = self.rfile.read(int(length))
        token = self.headers.get("X-Auth-Token", "")
        if hmac.compare_digest(token.encode(), DIRECTORY["token"].encode()):
            self.reply(*answer(self.command, self.path, body))
        else:
            self.reply(401, {"error": "X-Auth-Token is missing or wrong"})

    # Any other would be 501, without the header below.
    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        # For require-header: an answer without it comes from somebody else, such as a proxy.
        self.send_header("X-Directory", "1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def fields(form):
    """The fields of a query or a form. Python leaves out empty ones unless told otherwise."""
    return {name: values[0] for name, values in parse_qs(form, keep_blank_values=True).items()}


if __name__ == "__main__":
    if len(sys.argv) != 1 and sys.argv[1:2] + sys.argv[3:] != ["--listen"]:
        sys.exit("usage: directory.py [--listen 127.0.0.1:8080]")
    host, _, port = (sys.argv[2:] or ["127.0.0.1:8080"])[0].rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Api)
    print(f"listening on http://{host}:{server.server_port}", flush=True)
    server.serve_forever()
