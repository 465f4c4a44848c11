"""What a client verifies, says, survives and refuses."""

import hashlib
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import threading
import time

import cloister
import numpy as np
import pytest
from conftest import serving


def test_what_was_verified_is_told(world):
    with pytest.warns(cloister.SimulatedWarning, match="this is not a Nitro Enclave"):
        client = cloister.Client(world.endpoint, policy=str(world.policy))
    assert "SIMULATED" in repr(client) and "SIMULATED" in repr(client.model())
    assert (client.simulated, client.channel, client.release) == (True, "tls-exporter", "simulated")
    assert [step.number for step in client.steps] == list(range(1, 13))
    assert client.steps[8].name == "nonce" and client.steps[8].expected.startswith("the nonce that was sent, ")
    assert client.module_id.startswith("i-") and client.attested.tzinfo
    (model,) = client.models()
    assert (model.name, model.version, model.accepted) == ("iris", "1", True)
    description = client.description()
    assert description.digest == model.digest and description.labels == ("setosa", "versicolor", "virginica")
    assert "iris" in repr(description) and len(repr(description)) < 200
    assert description.features[3].name == "petal width (cm)" and description.bound <= 1e-3
    client.close()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([('pcr0 = "', 'pcr0 = "00'), ('"  # the whole', '"')], "pcr_mismatch"),
        ([('name = "simulated"', 'name = "simulated"\nrevoked = "it leaks its key"')], "release_revoked"),
    ],
)
def test_an_evaluator_that_is_not_accepted_is_named_by_the_step(world, changes, code):
    if code == "pcr_mismatch":
        line = next(line for line in world.policy.read_text().splitlines() if line.startswith("pcr0"))
        changes = [(line, 'pcr0 = "' + "ab" * 48 + '"')]
    with pytest.raises(cloister.NotVerified) as caught:
        world.connect(policy=world.policy_with(*changes))
    error = caught.value
    assert (error.step, error.step_name, error.code) == (12, "policy", code)
    assert [step.number for step in error.passed] == list(range(1, 12))
    assert error.expected.startswith("a release of the policy") and error.remedy in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) and copy.passed == error.passed


def test_a_model_that_is_not_accepted_is_not_asked(world, X):
    line = next(line for line in world.policy.read_text().splitlines() if line.startswith("digest"))
    policy = world.policy_with((line, 'digest = "sha384:' + "ab" * 48 + '"'))
    client = world.connect(policy=policy)
    assert not client.models()[0].accepted
    with pytest.raises(cloister.NotVerified) as caught:
        client.predict(X, model="iris")
    assert caught.value.step is None and caught.value.code == "model_digest_mismatch"
    with pytest.raises(cloister.BadInput, match="no model is named.*\n.*client.models\\(\\)"):
        client.predict(X)


def test_who_does_not_answer_is_unreachable(world):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(cloister.Unreachable) as caught:
            cloister.Client(f"https://127.0.0.1:{closed.getsockname()[1]}", policy=world.policy)
    assert caught.value.code == "unreachable"


def test_what_is_no_evaluator_policy_or_model_is_bad_input(world, tmp_path):
    for arguments in [
        {},
        {"endpoint": "127.0.0.1:8443"},
        {"endpoint": world.endpoint, "gateway": world.endpoint},
        {"endpoint": world.endpoint, "objects": "s3://bucket"},
        {"endpoint": world.endpoint, "token": "short"},
        {"endpoint": world.endpoint, "connections": 0},
        {"gateway": "http://127.0.0.1:1", "token": "x" * 40},
        {"gateway": "ftp://127.0.0.1"},
        {"sagemaker": "a/b"},
    ]:
        with pytest.raises(cloister.BadInput):
            cloister.Client(**arguments, policy=world.policy)
    with pytest.raises(FileNotFoundError):
        cloister.Client(world.endpoint, policy=tmp_path / "nothing.toml")
    (tmp_path / "policy.toml").write_text("version = 2")
    with pytest.raises(cloister.BadInput, match=r"policy\.toml: "):
        cloister.Client(world.endpoint, policy=tmp_path / "policy.toml")
    with pytest.raises(cloister.BadInput, match="wine") as caught:
        world.connect(model="wine")
    assert caught.value.code == "unknown_model" and "client.models()" in caught.value.remedy


def test_where_tls_ends_before_the_enclave_it_is_said(tmp_path, iris, X):
    with serving(tmp_path, iris, gateway=True) as world:
        with pytest.warns(cloister.ChannelWarning, match="TLS ENDS BEFORE THE ENCLAVE"):
            client = cloister.Client(gateway=world.gateway, policy=world.policy)
        assert client.channel == "none" and "SIMULATED" in repr(client)
        assert len(client.predict(X)) == 150
        required = world.policy_with(('channel = "optional"', 'channel = "required"'))
        with pytest.raises(cloister.NotVerified) as caught:
            cloister.Client(gateway=world.gateway, policy=required)
        assert (caught.value.step, caught.value.code) == (12, "channel_required")


def test_a_client_is_known_by_its_token_and_waits_for_its_budget(tmp_path, iris, X, caplog):
    token = "an-example-of-a-token-that-nobody-guesses"
    known = {"name": "a", "token": "sha384:" + hashlib.sha384(token.encode()).hexdigest()}
    settings = {"v": 1, "max_connections": 9, "clients": [{**known, "budget": {"requests_per_minute": 60}}]}
    (tmp_path / "token").write_text(token + "\n")
    with serving(tmp_path, iris, settings=settings) as world:
        with pytest.raises(cloister.Refused) as caught:
            world.connect().predict(X)
        assert caught.value.code == "unauthorized"
        client = world.connect(token_file=tmp_path / "token")
        for row in range(62):
            client.predict(X[row : row + 1])
    assert "asking again in" in caplog.text and caplog.records[0].name == "cloister"


def test_evidence_is_verified_when_the_enclave_is_long_gone(tmp_path, iris, X):
    with serving(tmp_path, iris) as world:
        client = world.connect(connections=2)
        assert len(client.evidence) == 0
        client.predict(np.tile(X, (20, 1)))
        open_pieces = client.evidence
        client.close()
        client.close()
        with pytest.raises(cloister.BadInput, match="closed"):
            client.predict(X)
    evidence = client.evidence
    assert sorted(evidence) == sorted(open_pieces) and len(evidence) == 2
    paths = evidence.save(tmp_path / "evidence.cbor")
    assert [path.name for path in paths] == ["evidence.cbor", "evidence.cbor.2"]
    with pytest.warns(cloister.SimulatedWarning):
        verified = [cloister.verify_evidence(path, policy=world.policy) for path in paths]
    assert [piece.receipts for piece in verified] == [piece.receipts for piece in evidence.verify(world.policy)]
    assert {piece.release for piece in verified} == {"simulated"} and verified[0].module_id == client.module_id
    assert client.module_id in repr(verified[0]) and len(repr(verified[0])) < 300
    receipts = [receipt for piece in verified for receipt in piece.receipts]
    assert len(receipts) >= 2 and {receipt.models for receipt in receipts} == {("iris",)}
    assert {receipt.digest for receipt in receipts} == {iris.digest} and receipts[0].time >= verified[0].time
    for broken, code in [(evidence[0][:-1], "evidence_malformed"), (b"", "evidence_malformed")]:
        with pytest.raises(cloister.NotVerified) as caught:
            cloister.verify_evidence(broken, policy=world.policy)
        assert caught.value.code == code
    revoked = world.policy_with(('name = "simulated"', 'name = "simulated"\nrevoked = "it leaks its key"'))
    with pytest.raises(cloister.NotVerified) as caught:
        cloister.verify_evidence(evidence[0], policy=revoked)
    assert (caught.value.step, caught.value.code) == (12, "release_revoked")


def test_a_document_is_verified_alone(client, world, X):
    client.predict(X[:1])
    # In a piece of evidence, CBOR, it comes after its key: a byte string whose length has 16 bits.
    piece = client.evidence[0]
    begin = piece.index(b"document\x59") + len(b"document\x59")
    document = piece[begin + 2 : begin + 2 + int.from_bytes(piece[begin : begin + 2])]
    nonce = bytes.fromhex(client.steps[8].expected.rpartition(" ")[2])
    with pytest.warns(cloister.SimulatedWarning):
        verified = cloister.verify_document(document, policy=world.policy, nonce=nonce)
    assert (verified.release, verified.module_id, verified.nonce) == ("simulated", client.module_id, nonce)
    assert [step.number for step in verified.steps] == [*range(1, 10), 12]
    assert client.module_id in repr(verified) and len(repr(verified)) < 300
    assert set(verified.pcrs) >= {0, 1, 2} and len(verified.pcrs[0]) == 48
    for options, step, code in [
        ({"policy": world.policy, "nonce": b"another"}, 9, "nonce_mismatch"),
        ({}, 4, "root_mismatch"),
        ({"policy": world.policy, "at": "2020-01-01T00:00:00Z"}, 7, "clock_or_document_in_future"),
    ]:
        with pytest.raises(cloister.NotVerified) as caught:
            cloister.verify_document(document, **options)
        assert (caught.value.step, caught.value.code) == (step, code)
    for at in ["document", client.attested]:
        assert cloister.verify_document(document, policy=world.policy, at=at).steps
    with pytest.raises(cloister.BadInput, match="yesterday"):
        cloister.verify_document(document, at="yesterday")


def test_progress_is_told_to_the_end(client, X):
    told = []
    client.predict(np.tile(X, (2000, 1)), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (300_000, 300_000) and told == sorted(told)

    def fails(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        client.predict(X, progress=fails)
    assert len(client.predict(X, progress=False)) == 150


def test_a_long_prediction_has_a_bar_if_somebody_sees_it(client, X, monkeypatch, capsys):
    monkeypatch.setattr(cloister._progress, "_PATIENCE", 0.0)
    rows = np.tile(X, (4000, 1))
    client.predict(rows)
    assert "rows" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    client.predict(rows)
    assert "/600000" in capsys.readouterr().err
    client.predict(rows, progress=False)
    assert "rows" not in capsys.readouterr().err


def test_two_threads_use_one_client_at_once(client, X):
    expected, found = client.predict(X), {}

    def predict(part):
        found[part] = [client.predict(X[part::2]) for _ in range(10)]

    threads = [threading.Thread(target=predict, args=(part,)) for part in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for part in range(2):
        assert all((labels == expected[part::2]).all() for labels in found[part])


def test_other_threads_go_on_while_one_predicts(client, X):
    rows, done, count = np.tile(X, (4000, 1)), threading.Event(), 0
    thread = threading.Thread(target=lambda: (client.predict(rows), done.set()))
    thread.start()
    while not done.is_set():
        count += 1
        time.sleep(0.001)
    thread.join()
    assert count > 100


INTERRUPTED = """
import sys, threading, time, signal, os
import numpy as np, cloister
client = cloister.Client(sys.argv[1], policy=sys.argv[2])
X = np.tile([[5.1, 3.5, 1.4, 0.2]], (4_000_000, 1))
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
began = time.monotonic()
try:
    client.predict(X)
except KeyboardInterrupt:
    print(f"interrupted after {time.monotonic() - began:.1f}")
print(client.predict(X[:1])[0], len(client.evidence.verify(sys.argv[2])) > 0)
"""


def test_a_prediction_can_be_interrupted_and_the_client_lives_on(world):
    command = [sys.executable, "-c", INTERRUPTED, world.endpoint, world.policy]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120)
    first, second = output.stdout.splitlines()
    assert first.startswith("interrupted after ") and float(first.split()[-1]) < 4, output
    assert second == "setosa True"


def test_a_client_is_for_one_process(client):
    for what in [client, client.model()]:
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(what)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_of_a_client_says_so_and_can_have_its_own(client, world, X):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def child():
        try:
            client.predict(X)
        except cloister.BadInput as error:
            answers.put(error.code)
        answers.put(world.connect().predict(X[:1])[0])

    process = context.Process(target=child)
    process.start()
    assert (answers.get(timeout=60), answers.get(timeout=60)) == ("forked", "setosa")
    process.join(60)
    assert process.exitcode == 0
    assert len(client.predict(X)) == 150
