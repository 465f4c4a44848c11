"""The SageMaker runtime, as far as a client sees it: checks the signature of InvokeEndpoint as AWS does, by botocore, and hands
the request on to a container; what the container refuses becomes a ModelError.

    python runtime.py CONTAINER_URL

Prints where it listens. The one access key is in KEY.
"""

import http.client
import http.server
import json
import sys
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
REGION = "eu-central-1"
CONTAINER = urlsplit(sys.argv[1]).netloc
HANDED_ON = ["content-type", "accept"]


class Runtime(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not self.is_signed(body):
            return self.answer(403, {"x-amzn-errortype": "InvalidSignatureException"}, b'{"message":"The request signature does not match"}')
        if self.path != "/endpoints/iris-endpoint/invocations":
            return self.answer(400, {"x-amzn-errortype": "ValidationError"}, b'{"message":"Endpoint not found."}')
        headers = {k: v for k, v in self.headers.items() if k.lower() in HANDED_ON or k.lower().startswith("x-amzn-sagemaker-")}
        connection = http.client.HTTPConnection(CONTAINER, timeout=65)
        connection.request("POST", "/invocations", body, headers)
        response = connection.getresponse()
        said = response.read()
        if response.status == 200:
            return self.answer(200, {"content-type": response.getheader("content-type")}, said)
        error = {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL",
            "LogStreamArn": "arn:aws:logs:none",
            "Message": f"Received client error ({response.status}) from primary",
            "OriginalMessage": said.decode(),
            "OriginalStatusCode": response.status,
        }
        self.answer(424, {"x-amzn-errortype": "ModelError"}, json.dumps(error).encode())

    def is_signed(self, body):
        authorization = self.headers.get("authorization", "")
        if "SignedHeaders=" not in authorization:
            return False
        signed = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
        request = AWSRequest("POST", f"http://{self.headers['host']}{self.path}", data=body)
        for name in signed:
            request.headers[name] = self.headers[name]
        request.context["timestamp"] = self.headers["x-amz-date"]
        auth = SigV4Auth(KEY, "sagemaker", REGION)
        # botocore would leave out headers that proxies change; what was signed is what counts.
        auth.headers_to_sign = lambda request: request.headers
        canonical = auth.canonical_request(request)
        signature = auth.signature(auth.string_to_sign(request, canonical), request)
        required = {"host", "x-amz-date"} <= set(signed)
        return required and authorization.endswith(f"Signature={signature}")

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Runtime)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
