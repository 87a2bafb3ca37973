"""The app behind the gateway: judges with the provider's own SDK what arrived, and answers 200 or 418."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sdk import VERIFY


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        name = self.path.split("/")[2].split("?")[0]
        try:
            verified = VERIFY[name](f"https://{headers['host']}{self.path}", headers, body) is not False
        except Exception as error:  # each library has exceptions of its own
            self.log_error("%s: %r", name, error)
            verified = False
        text = b"verified by python" if verified else b"refused by python"
        self.send_response(200 if verified else 418)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_request(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), App)
    print(server.server_port, flush=True)
    server.serve_forever()
