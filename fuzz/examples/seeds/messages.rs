//! Public keys, requests and replies.

use cloister_inference::{Bundle, Session};
use cloister_wire::oip::{Expected, Framed, InferRequest, InferResponse};

use crate::{Corpus, Exchange, replaced, signed::Enclave};

pub(crate) fn write(
    enclave: &Enclave,
    bundle: &Bundle,
    larger_ring: &Bundle,
    choosers: &[Bundle; 3],
    [exchange, other]: [&Exchange; 2],
) {
    let [larger_key, smaller_key] =
        [larger_ring, &choosers[0]].map(|bundle| Session::new(bundle.description()).public_key().to_vec());
    public_keys(&exchange.key, &larger_key, &smaller_key);
    requests(bundle, exchange, other, &larger_key);
    replies(enclave, bundle, exchange, other);
    chosen(choosers);
}

fn public_keys(key: &[u8], larger_key: &[u8], smaller_key: &[u8]) {
    let corpus = Corpus::new("public_key");
    corpus.valid("n2048-tuniform17", key);
    corpus.valid("n4096-tuniform3", larger_key);
    corpus.valid("k4-n512-tuniform17", smaller_key);
    corpus.valid("all-ones", [&key[..9], &vec![0xff; key.len() - 9]].concat());
    corpus.refused("message_too_short-empty", []);
    corpus.refused("message_too_short", &key[..8]);
    for (code, place) in HEADER {
        let mut changed = key[..9].to_vec();
        changed[place] ^= 0x40;
        corpus.refused(code, changed);
    }
    corpus.refused("message_length-header-alone", &key[..9]);
    corpus.refused("message_length-truncated", &key[..key.len() - 1]);
    corpus.refused("message_length-of-the-other-ring", [&larger_key[..9], &key[9..]].concat());
}

/// Where a byte of the header is looked at, and the code if it is another.
const HEADER: [(&str, usize); 5] = [
    ("message_magic", 0),
    ("message_version", 4),
    ("message_parameters", 5),
    ("message_layout", 6),
    ("message_rows", 8),
];

fn requests(bundle: &Bundle, exchange: &Exchange, other: &Exchange, larger_key: &[u8]) {
    let corpus = Corpus::new("request");
    let Exchange { key, request, .. } = exchange;
    let with = |key: &[u8], ciphertext: &[u8]| {
        message(
            &InferRequest { id: Some("r-1".into()), public_key: Some(key), ciphertext, expected: Expected::default() }
                .to_framed(),
        )
    };
    let sent = |ciphertext: &[u8]| with(key, ciphertext);
    let whole = sent(request);
    corpus.valid("iris", &whole);
    let unnamed = InferRequest { id: None, public_key: Some(key), ciphertext: request, expected: Expected::default() };
    corpus.valid("no-id", message(&unnamed.to_framed()));
    for (name, rows) in [("many-rows", 40), ("full", bundle.rows_per_request())] {
        let exchange = Exchange::new(bundle, &vec![[5.1, 3.5, 1.4, 0.2]; rows]);
        corpus.valid(name, with(&exchange.key, &exchange.request));
    }

    // The key may have come before: the first request of a connection needs it.
    let without =
        InferRequest { id: Some("r-1".into()), public_key: None, ciphertext: request, expected: Expected::default() };
    corpus.refused("public_key_missing-not-sent", message(&without.to_framed()));
    corpus.refused("public_key_missing-another-sent", with(&other.key, request));
    corpus.refused("message_length-none-named", sent(&request[..24]));
    corpus.refused("public_key-other-parameters", with(larger_key, &naming(larger_key, request)));

    for (code, place) in HEADER {
        let mut changed = request.clone();
        changed[place] ^= 0x40;
        corpus.refused(code, sent(&changed));
        let mut changed = key.clone();
        changed[place] ^= 0x40;
        corpus.refused(&format!("{code}-of-the-key"), with(&changed, request));
    }
    corpus.refused("message_too_short-key", with(&key[..8], request));
    corpus.refused("message_length-key", with(&key[..key.len() - 1], request));
    corpus.refused("message_length", sent(&request[..request.len() - 1]));
    corpus.refused("bad_request-empty", []);
    corpus.refused("bad_request-truncated", &whole[..whole.len() - 1]);
    corpus.refused("bad_request-trailing-byte", [&whole[..], &[0]].concat());
    corpus.refused("bad_request-no-header-length", [&[0xff, 0xff], &whole[2..]].concat());
    corpus.refused("bad_request-long-header", [&[0x7f, 0xff][..], &vec![b' '; 0x7fff]].concat());
    corpus.refused("bad_request-other-order", replaced(&whole, b"public_key", b"ciphertext"));
    let plain = br#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}"#;
    corpus.refused("plaintext_refused", [&[0xff, 0xff], &plain[..]].concat());
    let beside = replaced(&whole, br#""ciphertext","datatype":"BYTES""#, br#""ciphertext","datatype":"INT64""#);
    corpus.refused("plaintext_refused-beside-a-key", beside);
}

/// The request, as if it had been encrypted under that key.
fn naming(key: &[u8], request: &[u8]) -> Vec<u8> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
    [&request[..9], &digest.as_ref()[..16], &request[25..]].concat()
}

fn replies(enclave: &Enclave, bundle: &Bundle, exchange: &Exchange, other: &Exchange) {
    let corpus = Corpus::new("reply");
    let answer = |ciphertext: &[u8], receipt: &[u8]| {
        let answer = InferResponse { model_name: "iris", model_version: "1.0", id: None, ciphertext, receipt };
        message(&answer.to_framed())
    };
    let receipt = enclave.sign(&enclave.receipt(exchange));
    let whole = answer(&exchange.reply, &receipt);
    corpus.valid("iris", &whole);
    corpus.refused("bad_request-empty", []);
    corpus.refused("bad_request-truncated", &whole[..whole.len() - 1]);
    corpus.refused("bad_request-trailing-byte", [&whole[..], &[0]].concat());
    corpus.refused("receipt_malformed", answer(&exchange.reply, &[]));
    corpus.refused("response_mismatch", answer(&other.reply, &receipt));
    corpus.refused("request_mismatch", answer(&other.reply, &enclave.sign(&enclave.receipt(other))));

    let vouched = |ciphertext: &[u8]| {
        let Exchange { key, request, .. } = exchange;
        let exchange = Exchange { key: key.clone(), request: request.clone(), reply: ciphertext.to_vec() };
        answer(ciphertext, &enclave.sign(&enclave.receipt(&exchange)))
    };
    corpus.refused("message_length", vouched(&exchange.reply[..exchange.reply.len() - 1]));
    corpus.refused("message_magic", vouched(&exchange.request));
    for (code, place) in HEADER.into_iter().skip(1) {
        let mut changed = exchange.reply.clone();
        changed[place] ^= 0x40;
        corpus.refused(code, vouched(&changed));
    }
    let rows = Exchange::new(bundle, &[[5.1, 3.5, 1.4, 0.2]; 2]);
    corpus.refused("reply_to_another_request", vouched(&rows.reply));
}

/// Of trees and networks: ciphertexts behind the number of their model.
fn chosen(choosers: &[Bundle; 3]) {
    let (requests, replies) = (Corpus::new("selection_request"), Corpus::new("selection_reply"));
    let to = |number: usize, message: &[u8]| [&[number as u8], message].concat();
    for (number, bundle) in choosers.iter().enumerate() {
        let mut session = Session::new(bundle.description());
        let request = session.encrypt(&[[4.0]]).expect("the row is within the ranges");
        requests.valid(bundle.name(), to(number, request.bytes()));
        // What is changed of a reply.
        replies.valid(bundle.name(), to(number, &vec![0; bundle.reply_len(1)]));
    }
    chosen_requests(&requests, &choosers[0]);
    chosen_replies(&replies, &choosers[0]);
}

fn chosen_requests(corpus: &Corpus, tree: &Bundle) {
    let mut session = Session::new(tree.description());
    let request = session.encrypt(&[[4.0]]).expect("the row is within the ranges").bytes().to_vec();
    let sent = |message: &[u8]| [&[0], message].concat();
    let changed = |place: usize, byte: u8| [&request[..place], &[byte], &request[place + 1..100]].concat();
    corpus.refused("unknown_model-none-named", []);
    corpus.refused("unknown_model", [3]);
    corpus.refused("message_too_short-empty", sent(&[]));
    corpus.refused("message_too_short", sent(&request[..8]));
    corpus.refused("message_magic", sent(&changed(3, b'p')));
    corpus.refused("message_version", sent(&changed(4, 9)));
    corpus.refused("message_parameters-of-a-network", sent(&changed(5, 1)));
    corpus.refused("message_layout", sent(&changed(6, 1)));
    corpus.refused("message_rows-none", sent(&changed(7, 0)));
    corpus.refused("message_rows-two", sent(&changed(7, 2)));
    corpus.refused("message_length-header-alone", sent(&request[..9]));
    corpus.refused("message_length-no-bits", sent(&request[..9 + 16 + 32 + 19 * 6]));
    corpus.refused("message_length-truncated", sent(&request[..request.len() - 1]));
    corpus.refused("message_length-trailing-byte", sent(&[&request[..], &[0]].concat()));
}

fn chosen_replies(corpus: &Corpus, tree: &Bundle) {
    let unchanged = vec![0; tree.reply_len(1)];
    let with = |place: usize, byte: u8| {
        let mut changes = [&[0], &unchanged[..]].concat();
        changes[1 + place] = byte;
        changes
    };
    corpus.refused("unknown_model", [3]);
    corpus.refused("message_too_short", [0; 9]);
    for (code, place) in HEADER {
        corpus.refused(code, with(place, 0x40));
    }
    corpus.refused("message_length-truncated", [&[0], &unchanged[1..]].concat());
    corpus.refused("message_length-trailing-byte", [&[0, 0], &unchanged[..]].concat());
    let mut masks = [&[0], &unchanged[..]].concat();
    masks[10..100].fill(0xff);
    corpus.refused("reply_foreign-mask", masks);
    // The last coefficient is the check's.
    corpus.refused("reply_foreign-check", with(unchanged.len() - 1, 0xff));
    corpus.refused("reply_foreign-all", [&[0], &unchanged[..9], &vec![0xff; unchanged.len() - 9]].concat());
}

/// The length of the JSON header in two big-endian bytes, and the body.
fn message(Framed { header_length, body }: &Framed) -> Vec<u8> {
    let header_length = u16::try_from(*header_length).expect("headers are short");
    [&header_length.to_be_bytes(), &body[..]].concat()
}
