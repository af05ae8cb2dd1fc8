use super::*;

const CLIENT: FrameRules = FrameRules { masked: true, deflated: false, message_bytes: 1 << 20 };
const SERVER: FrameRules = FrameRules { masked: false, deflated: false, message_bytes: 1 << 20 };

fn piece(opcode: Opcode, last: bool, payload: &[u8]) -> FramePiece {
    FramePiece { opcode, deflated: false, last, payload: payload.into() }
}

/// What is read of `bytes`, which come in steps of this size.
fn read(rules: FrameRules, bytes: &[u8], step: usize) -> Result<Vec<FramePiece>, Violation> {
    let (mut decoder, mut buffer, mut pieces) = (Decoder::new(rules), BytesMut::new(), Vec::new());
    for part in bytes.chunks(step) {
        buffer.extend_from_slice(part);
        while let Some(piece) = decoder.next(&mut buffer)? {
            pieces.push(piece);
        }
    }
    Ok(pieces)
}

fn code(rules: FrameRules, bytes: &[u8]) -> Option<u16> {
    read(rules, bytes, bytes.len()).err().map(|violation| violation.code)
}

#[test]
fn what_is_written_is_read_back_however_it_is_cut() {
    let messages = [
        piece(Opcode::Text, true, b"hello"),
        piece(Opcode::Ping, true, b""),
        piece(Opcode::Binary, false, &[7; 126]),
        piece(Opcode::Pong, true, &[1; 125]),
        piece(Opcode::Continuation, false, b""),
        piece(Opcode::Continuation, true, &[8; 65_535]),
        piece(Opcode::Text, true, b""),
        piece(Opcode::Close, true, &close_payload(1000, "bye")),
    ];
    for (rules, mask) in [(CLIENT, Some([1, 2, 3, 4])), (CLIENT, Some([0; 4])), (SERVER, None)] {
        let mut bytes = BytesMut::new();
        for message in &messages {
            encode(&mut bytes, message, mask);
        }
        for step in [1, 2, 3, 7, 1_000, bytes.len()] {
            assert_eq!(read(rules, &bytes, step).unwrap(), messages, "in steps of {step}");
        }
    }
}

#[test]
fn a_large_frame_comes_in_pieces_of_one_message() {
    let payload: Vec<u8> = (0..WHOLE * 3).map(|at| (at % 251) as u8).collect();
    let mut bytes = BytesMut::new();
    encode(&mut bytes, &piece(Opcode::Binary, true, &payload), Some([9, 8, 7, 6]));
    for step in [1_001, 65_536] {
        let pieces = read(CLIENT, &bytes, step).unwrap();
        assert!(pieces.len() > 2);
        assert_eq!(pieces[0].opcode, Opcode::Binary);
        assert!(pieces[1..].iter().all(|piece| piece.opcode == Opcode::Continuation));
        let last: Vec<usize> = (0..pieces.len()).filter(|at| pieces[*at].last).collect();
        assert_eq!(last, [pieces.len() - 1]);
        assert_eq!(pieces.iter().flat_map(|piece| piece.payload.to_vec()).collect::<Vec<_>>(), payload);
    }
}

#[test]
fn a_frame_that_is_not_allowed_is_none() {
    // A client that does not mask, and a server that does.
    assert_eq!(code(CLIENT, b"\x81\x01a"), Some(1002));
    assert_eq!(code(SERVER, b"\x81\x81\x01\x02\x03\x04a"), Some(1002));
    // Reserved bits and opcodes.
    for first in [b'\xc1', b'\xa1', b'\x91', b'\x83', b'\x8b'] {
        assert_eq!(code(SERVER, &[first, 1, b'a']), Some(1002), "{first:x}");
    }
    // Control frames in parts, or too long.
    assert_eq!(code(SERVER, b"\x09\x01a"), Some(1002));
    assert_eq!(code(SERVER, b"\x89\x7e\x00\x7e"), Some(1002));
    // A message that goes on and has not begun, and one that begins in another.
    assert_eq!(code(SERVER, b"\x80\x01a"), Some(1002));
    assert_eq!(code(SERVER, b"\x01\x01a\x81\x01b"), Some(1002));
    // Lengths that are not in their shortest form, or have no sign.
    assert_eq!(code(SERVER, b"\x82\x7e\x00\x05aaaaa"), Some(1002));
    assert_eq!(code(SERVER, b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff"), Some(1002));
    assert_eq!(code(SERVER, b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), Some(1002));
    // Close frames with half a code, a code that is never sent, a reason that is no text.
    for (close, expected) in [
        (&b"\x88\x01\x03"[..], 1002),
        (b"\x88\x02\x03\xed", 1002),
        (b"\x88\x02\x03\xe7", 1002),
        (b"\x88\x03\x03\xe8\xff", 1007),
    ] {
        assert_eq!(code(SERVER, close), Some(expected));
    }
    // What a proxy that was fooled would have sent on as a request.
    assert_eq!(code(CLIENT, b"GET /admin HTTP/1.1\r\nhost: a\r\n\r\n"), Some(1002));
}

#[test]
fn a_message_has_at_most_so_many_bytes_however_many_frames_it_is_in() {
    let rules = FrameRules { message_bytes: 10, ..SERVER };
    assert_eq!(code(rules, b"\x82\x0b"), Some(1009));
    assert_eq!(code(rules, b"\x02\x06aaaaaa\x80\x05"), Some(1009));
    assert_eq!(code(rules, b"\x02\x06aaaaaa\x80\x04bbbb\x82\x0aaaaaaaaaaa"), None);
}

#[test]
fn compression_is_a_bit_of_the_first_frame_of_a_message_where_it_was_agreed_on() {
    let rules = FrameRules { deflated: true, ..SERVER };
    let pieces = read(rules, b"\x41\x01a\x80\x01b\x81\x01c", 3).unwrap();
    assert_eq!(pieces.iter().map(|piece| piece.deflated).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(code(rules, b"\x41\x01a\xc0\x01b"), Some(1002));
    assert_eq!(code(rules, b"\xc9\x01a"), Some(1002));
    let mut out = BytesMut::new();
    encode(&mut out, &pieces[0], None);
    assert_eq!(&out[..], b"\x41\x01a");
}

#[test]
fn no_two_keys_of_masks_are_the_same_but_by_chance() {
    let mut keys = MaskKeys::new();
    let taken: std::collections::HashSet<[u8; 4]> = (0..1_000).map(|_| keys.take().unwrap()).collect();
    assert!(taken.len() > 990);
}
