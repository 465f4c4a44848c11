//! Requests and replies.

use cloister_inference::Bundle;
use cloister_wire::oip::{Framed, InferRequest, InferResponse};

use crate::{Corpus, Exchange, signed::Enclave};

pub(crate) fn write(enclave: &Enclave, bundle: &Bundle, exchange: &Exchange, other: &Exchange) {
    requests(bundle, exchange);
    replies(enclave, exchange, other);
}

fn requests(bundle: &Bundle, Exchange { request, .. }: &Exchange) {
    let corpus = Corpus::new("request");
    let sent = |ciphertext: &[u8]| message(&InferRequest { id: Some("r-1"), ciphertext }.to_framed());
    corpus.valid("iris", sent(request));
    corpus.valid("no-id", message(&InferRequest { id: None, ciphertext: request }.to_framed()));
    let rows = vec![[5.1, 3.5, 1.4, 0.2]; 40];
    corpus.valid("many-rows", sent(&Exchange::new(bundle, &rows).request));

    for (code, place) in [("message_magic", 0), ("message_version", 4), ("message_parameters", 5), ("message_rows", 7)]
    {
        let mut changed = request.clone();
        changed[place] ^= 0x40;
        corpus.refused(code, sent(&changed));
    }
    corpus.refused("message_too_short", sent(&request[..7]));
    corpus.refused("message_length", sent(&request[..request.len() - 1]));
    let whole = sent(request);
    corpus.refused("bad_request-empty", []);
    corpus.refused("bad_request-truncated", &whole[..whole.len() - 1]);
    corpus.refused("bad_request-trailing-byte", [&whole[..], &[0]].concat());
    corpus.refused("bad_request-no-header-length", [&[0xff, 0xff], &whole[2..]].concat());
    corpus.refused("bad_request-long-header", [&[0x7f, 0xff][..], &vec![b' '; 0x7fff]].concat());
    let plain = br#"{"inputs":[{"name":"X","datatype":"FP32","shape":[1,4],"data":[5.1,3.5,1.4,0.2]}]}"#;
    corpus.refused("plaintext_refused", [&[0xff, 0xff], &plain[..]].concat());
}

fn replies(enclave: &Enclave, exchange: &Exchange, other: &Exchange) {
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
        let Exchange { request, .. } = exchange;
        let exchange = Exchange { request: request.clone(), reply: ciphertext.to_vec() };
        answer(ciphertext, &enclave.sign(&enclave.receipt(&exchange)))
    };
    corpus.refused("message_length", vouched(&exchange.reply[..exchange.reply.len() - 1]));
    corpus.refused("message_magic", vouched(&exchange.request));
}

/// The length of the JSON header in two big-endian bytes, and the body.
fn message(Framed { header_length, body }: &Framed) -> Vec<u8> {
    let header_length = u16::try_from(*header_length).expect("headers are short");
    [&header_length.to_be_bytes(), &body[..]].concat()
}
