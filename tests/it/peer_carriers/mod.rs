//! Carriers of the independent peer in Python (`tests/peer`).

mod itself;
mod program;

use serde_json::Value;

/// The streams of a carrier's report, by their numbers.
pub fn streams(report: &Value) -> Vec<&Value> {
    (1..).map_while(|number: u32| report["streams"].get(number.to_string())).collect()
}

/// How each stream ended.
pub fn ends(report: &Value) -> Vec<&str> {
    streams(report).iter().map(|stream| stream["end"].as_str().unwrap()).collect()
}

/// How many streams have moved.
pub fn moved(report: &Value) -> usize {
    streams(report).iter().filter(|stream| stream["moved"] == true).count()
}

/// A frame as hexadecimal digits.
pub fn frame(kind: u8, stream: u32, payload: &str) -> String {
    format!("{kind:02x}{stream:08x}{:04x}{payload}", payload.len() / 2)
}

/// What no true initiator says: each ends a carrier, by its rule.
pub fn hostile_to_responders() -> Vec<(String, &'static str)> {
    let end = frame(4, 1, "");
    vec![
        (frame(10, 1, ""), "a frame of type 10"),
        ("0300000001".to_owned(), "a frame that is cut"),
        ("030000000100057878".to_owned(), "a frame over the end of its record"),
        ("000001".to_owned(), "padding that is not zero"),
        (frame(3, 1, ""), "no data"),
        (frame(4, 1, "00"), "a frame of type 4 with 1 bytes"),
        (frame(5, 1, ""), "a frame of type 5 with 0 bytes"),
        (frame(6, 1, "00000000"), "credit of 0"),
        (frame(6, 1, "ffffffff"), "more credit than there may be"),
        (frame(3, 0, "78"), "a frame of type 3 in stream 0"),
        (frame(8, 1, "06"), "a frame of type 8 in stream 1"),
        (frame(8, 0, "06"), "GOAWAY from an initiator, or twice"),
        (frame(2, 1, ""), "OPENED from an initiator"),
        (frame(1, 1, ""), "OPEN from a responder, or out of order"),
        (frame(1, 7, "05"), "an extension that is cut short"),
        (frame(1, 7, ""), "more streams than are allowed"),
        (frame(3, 9, "78"), "a frame of a stream that was never opened"),
        (format!("{end}{end}"), "a frame of type 4 twice"),
        (format!("{end}{}", frame(3, 1, "78")), "a frame of type 3 after the end of its direction"),
        (frame(9, 1, ""), "DONE before END went both ways"),
        (format!("{end}{}", frame(9, 1, "")), "DONE before END went both ways"),
        (frame(7, 1, ""), "MOVED that nobody asked for"),
    ]
}

/// What no true responder says.
pub fn hostile_to_initiators() -> Vec<(String, &'static str)> {
    let end = frame(4, 1, "");
    vec![
        (frame(10, 1, ""), "a frame of type 10"),
        (frame(1, 7, ""), "OPEN from a responder, or out of order"),
        (frame(2, 1, ""), "a frame of type 2 twice"),
        (frame(2, 1, "0500"), "a frame of type 2 twice"),
        (frame(3, 9, "78"), "a frame of a stream that was never opened"),
        (frame(8, 0, "06").repeat(2), "GOAWAY from an initiator, or twice"),
        (format!("{end}{}", frame(9, 1, "")), "DONE before END went both ways"),
        (format!("{end}{}", frame(3, 1, "78")), "a frame of type 3 after the end of its direction"),
        (frame(7, 1, ""), "MOVED that nobody asked for"),
    ]
}
