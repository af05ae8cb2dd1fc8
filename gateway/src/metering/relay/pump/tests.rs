use super::*;

#[test]
fn without_a_scrubber_a_message_keeps_its_form() {
    let mut messages = CleanMessages::new(None);
    let piece = FramePiece { opcode: Opcode::Text, deflated: true, last: false, payload: BytesMut::new() };
    let clean = messages.clean(piece).unwrap();
    assert_eq!(
        (clean.opcode, clean.deflated, clean.last, clean.payload.len()),
        (Opcode::Text, true, false, 0)
    );
}
