"""SageMaker's container contract, asked as SageMaker asks: requests are shaped, and answers read, by botocore's own model of the
runtime API, and reach the container as the platform hands them on.

    python sagemaker.py URL MESSAGE ANSWER MODELS

MESSAGE is an encrypted inference request for the model `iris`; the answer to it is written to ANSWER. MODELS is the folder of the
multi-model verbs, with a folder `iris-2` in it that holds a bundle. Exits with 1 and a line for each difference.
"""

import base64
import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

import botocore.session
from botocore.awsrequest import HeadersDict
from botocore.parsers import create_parser
from botocore.serialize import create_serializer

INFER = "application/vnd.cloister.infer"
ATTESTATION = "application/vnd.cloister.attestation"
METADATA = "application/vnd.cloister.metadata"

SERVICE = botocore.session.get_session().get_service_model("sagemaker-runtime")
OPERATION = SERVICE.operation_model("InvokeEndpoint")
SERIALIZER = create_serializer(SERVICE.metadata["protocol"])
PARSER = create_parser(SERVICE.metadata["protocol"])

differences = []


def check(what, actual, expected):
    if actual != expected:
        differences.append(f"{what}: expected {expected!r}, found {actual!r}")


class Container:
    def __init__(self, url):
        self.address = urlsplit(url).netloc

    def ask(self, method, path, body=b"", headers=()):
        connection = http.client.HTTPConnection(self.address, timeout=65)
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        answer = response.status, dict(response.getheaders()), response.read()
        connection.close()
        return answer

    def invoke(self, path="/invocations", **parameters):
        """InvokeEndpoint: the platform takes the path away and hands on headers and body."""
        request = SERIALIZER.serialize_to_request({"EndpointName": "iris", **parameters}, OPERATION)
        status, headers, body = self.ask(request["method"], path, request["body"], request["headers"].items())
        if status != 200:
            return status, json.loads(body)
        # botocore's parser takes a body for text; what it is here for is the headers.
        answer = {"status_code": status, "headers": HeadersDict(headers), "body": ""}
        return status, {**PARSER.parse(answer, OPERATION.output_shape), "Body": body}


def code(answer):
    status, body = answer
    return status, body.get("code") if isinstance(body, dict) else None


def health(container):
    began = time.monotonic()
    status, _, _ = container.ask("GET", "/ping")
    check("ping", status, 200)
    check("ping within 2 s", time.monotonic() - began < 2, True)


def content_types(container, message, out):
    status, answer = container.invoke(Body=bytes(32), ContentType=ATTESTATION)
    check("attestation", (status, answer["ContentType"]), (200, ATTESTATION))
    status, answer = container.invoke(Body=b"{}", ContentType=METADATA, CustomAttributes="model=iris")
    check("metadata", json.loads(answer["Body"])["name"], "iris")
    status, answer = container.invoke(Body=message, ContentType=INFER, Accept="*/*", CustomAttributes="model=iris")
    check("infer", (status, answer["ContentType"]), (200, INFER))
    with open(out, "wb") as file:
        file.write(answer["Body"])
    for content_type in ["text/csv", "application/json", "application/x-npy", ""]:
        answer = container.invoke(Body=b"5.1,3.5,1.4,0.2", ContentType=content_type)
        check(f"plaintext as {content_type!r}", code(answer), (415, "unsupported_media_type"))


def models(container, message):
    def infer(**parameters):
        return container.invoke(Body=message, ContentType=INFER, **parameters)

    for target in ["iris", "iris/1", "/iris", "iris.cloister", "iris.tar.gz"]:
        check(f"target model {target}", infer(TargetModel=target)[0], 200)
    check("target before attribute", infer(TargetModel="iris", CustomAttributes="model=none")[0], 200)
    check("version by attribute", infer(CustomAttributes="trace=1;model=iris/1")[0], 200)
    check("another model", code(infer(TargetModel="wine")), (404, "unknown_model"))
    check("another version", code(infer(TargetModel="iris/9")), (404, "unknown_model"))
    check("no model", code(infer()), (400, "bad_request"))
    check("no name", code(infer(TargetModel="../iris")), (400, "bad_request"))


def headers(container, message):
    def infer(**parameters):
        return container.invoke(Body=message, ContentType=INFER, **parameters)

    status, answer = infer(
        CustomAttributes="model=iris;trace=abc",
        InferenceId="inference-7",
        TargetVariant="blue",
        EnableExplanations="`false`",
        InferenceComponentName="component",
    )
    check("headers of the platform are tolerated", status, 200)
    check("custom attributes come back", answer["CustomAttributes"], "model=iris;trace=abc")
    identified = {"Content-Type": ATTESTATION, "X-Amzn-SageMaker-Inference-Id": "7"}
    _, found, _ = container.ask("POST", "/invocations", bytes(32), identified)
    check("inference id comes back", HeadersDict(found).get("X-Amzn-SageMaker-Inference-Id"), "7")
    check("1024 characters", infer(CustomAttributes="model=iris;" + "x" * 1013)[0], 200)
    check("1025 characters", code(infer(CustomAttributes="model=iris;" + "x" * 1014)), (400, "bad_request"))
    status, _, _ = container.ask("POST", "/invocations", bytes(32), {"Content-Type": ATTESTATION, "Authorization": "Bearer x"})
    check("a token goes no further", status, 200)


def sessions(container, message):
    status, answer = container.invoke(Body=bytes(32), ContentType=ATTESTATION, SessionId="NEW_SESSION")
    identifier, _, expires = answer["NewSessionId"].partition("; Expires=")
    check("new session", (status, bool(identifier), expires[-1:]), (200, True, "Z"))
    infer = dict(Body=message, ContentType=INFER, CustomAttributes="model=iris")
    check("in a session", container.invoke(SessionId=identifier, **infer)[0], 200)
    close = json.dumps({"requestType": "CLOSE"}).encode()
    status, answer = container.invoke(Body=close, ContentType="application/json", SessionId=identifier)
    check("close", (status, answer.get("ClosedSessionId")), (200, identifier))
    check("closed", code(container.invoke(SessionId=identifier, **infer)), (400, "bad_request"))
    check("never opened", code(container.invoke(SessionId="0" * 32, **infer)), (400, "bad_request"))


def batch(container, message):
    status, _, body = container.ask("GET", "/execution-parameters")
    parameters = json.loads(body)
    check("execution parameters", (status, parameters["BatchStrategy"], parameters["MaxPayloadInMB"]), (200, "MULTI_RECORD", 6))
    record = {"model": "iris", "request": base64.b64encode(message).decode()}
    lines = [{**record, "id": "a"}, {**record, "id": "b", "model": "wine"}, {**record, "id": "c", "request": "AAAA"}, {**record, "id": "d"}]
    body = "\n".join(map(json.dumps, lines)).encode() + b"\n"
    status, answer = container.invoke(Body=body, ContentType="application/jsonlines")
    answers = [json.loads(line) for line in answer["Body"].decode().splitlines()]
    check("records in, records out", (status, [answer["id"] for answer in answers]), (200, ["a", "b", "c", "d"]))
    check("outcomes", ["response" in answer for answer in answers], [True, False, False, True])
    check("an unknown model", answers[1]["error"]["code"], "unknown_model")


def limits(container, message):
    answer = container.invoke(Body=bytes(6 * 1024 * 1024 + 1), ContentType=INFER, CustomAttributes="model=iris")
    check("6 MB and a byte", code(answer), (413, "too_large"))
    # SageMaker waits 250 ms for a connection, and 60 s for an answer, however busy the container is.
    stop, slowest, refused = threading.Event(), [0.0], []

    def flood():
        while not stop.is_set():
            status, _ = container.invoke(Body=message, ContentType=INFER, CustomAttributes="model=iris")
            if status not in (200, 429, 503):
                refused.append(status)

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        began = time.monotonic()
        connection = http.client.HTTPConnection(container.address, timeout=2)
        connection.connect()
        slowest[0] = max(slowest[0], time.monotonic() - began)
        connection.request("GET", "/ping")
        check("ping under load", connection.getresponse().status, 200)
        connection.close()
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    check("a connection within 250 ms", slowest[0] < 0.25, True)
    check("answers under load", refused, [])


def multi_model(container, message, folder):
    def verb(method, path, body=None):
        status, _, answer = container.ask(method, path, json.dumps(body).encode() if body else b"", {"Content-Type": "application/json"})
        return status, json.loads(answer) if answer else {}

    url = f"{folder}/iris-2"
    check("load", verb("POST", "/models", {"model_name": "4fe1", "url": url})[0], 200)
    check("load again", verb("POST", "/models", {"model_name": "4fe1", "url": url})[0], 409)
    check("load from elsewhere", verb("POST", "/models", {"model_name": "0", "url": f"{folder}/../policy.toml"})[0] in (400, 404), True)
    check("list", verb("GET", "/models"), (200, {"models": [{"modelName": "4fe1", "modelUrl": url}]}))
    check("get", verb("GET", "/models/4fe1"), (200, {"modelName": "4fe1", "modelUrl": url}))
    check("get another", verb("GET", "/models/none")[0], 404)
    status, answer = container.invoke("/models/4fe1/invoke", Body=b"{}", ContentType=METADATA, TargetModel="iris-2.tar.gz")
    check("invoke", (status, "2" in json.loads(answer["Body"])["versions"]), (200, True))
    check("invoke another", container.invoke("/models/none/invoke", Body=message, ContentType=INFER)[0], 404)
    check("unload", verb("DELETE", "/models/4fe1")[0], 200)
    check("unload again", verb("DELETE", "/models/4fe1")[0], 404)
    answer = container.invoke(Body=message, ContentType=INFER, TargetModel="iris/2")
    check("unloaded", code(answer), (404, "unknown_model"))
    check("the other one stays", container.invoke(Body=message, ContentType=INFER, TargetModel="iris")[0], 200)


def main():
    url, message_file, out, folder = sys.argv[1:]
    container = Container(url)
    with open(message_file, "rb") as file:
        message = file.read()
    health(container)
    content_types(container, message, out)
    models(container, message)
    headers(container, message)
    sessions(container, message)
    batch(container, message)
    limits(container, message)
    multi_model(container, message, folder)
    print(f"{len(differences)} differences")
    sys.exit("\n".join(differences) or 0)


main()
