use bytes::BytesMut;

use super::*;
use crate::metering::catalog::shipped;
use crate::websocket::Opcode;

#[test]
fn an_error_names_the_message_as_its_client_does() {
    let catalog = shipped().unwrap();
    let endpoint = catalog.dialect("openai").unwrap().endpoint("GET", "/v1/realtime").unwrap();
    let rules = endpoint.session.as_ref().unwrap();
    let mut tap = Tap::server(ServerReader::new(endpoint, rules));
    let text = r#"{"type":"error","error":{"event_id":"tollgate_1","code":"a"}}"#;
    let piece =
        FramePiece { opcode: Opcode::Text, deflated: false, last: true, payload: BytesMut::from(text) };
    assert!(matches!(tap.take(piece), Ok(None)));
    tap.rename("tollgate_2", "other");
    tap.rename("tollgate_1", "my \"own\"");
    let told = r#"{"type":"error","error":{"event_id":"my \"own\"","code":"a"}}"#;
    assert_eq!(tap.take_piece().unwrap().payload, told);
}
