//! Reading a socket's message never panics, and a context it accepts is one that can be read again.
//!
//! Run (nightly, with cargo-fuzz installed): `cargo +nightly fuzz run socket_message -- -max_len=65536 -max_total_time=600`
//!
//! `evaluator/tests/websocket.rs` sends messages of every shape to a real socket.
#![no_main]

use flagmint_evaluator::engine::Context;
use flagmint_evaluator::http::message::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    match Message::read(input) {
        Message::Context(json) => assert!(Context::from_json(json.as_bytes()).is_ok(), "{json}"),
        Message::Ping | Message::BadContext(_) | Message::Other => {}
    }
});
