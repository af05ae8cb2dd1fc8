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

#[tokio::test]
async fn what_a_caller_does_not_take_makes_the_pump_full_and_gives_it_no_more_time() {
    let (traffic, progress) = (Traffic::default(), WriteProgress::new(None));
    let rules = FrameRules { masked: false, deflated: false, message_bytes: 1 << 20 };
    let (to, mut caller) = tokio::io::duplex(64);
    let from = tokio::io::empty();
    let mut pump = Pump::of_provider((from, to), rules, CleanMessages::new(None), (&traffic, &progress));
    let mut said = 0;
    while pump.has_room() {
        pump.say(&[b'a'; 1 << 10]).unwrap();
        said += 1;
    }
    assert!((64..=65).contains(&said), "{said}");
    assert!(timeout(Duration::from_millis(10), pump.flush()).await.is_err());
    let left = pump.out.len();
    assert_eq!(pump.fresh, 0);
    assert!(left > 60 << 10 && !pump.has_room());
    pump.say(b"a").unwrap();
    assert!(pump.fresh < 8, "only what is new is handed over again: {}", pump.fresh);
    let read = async {
        let mut sink = vec![0; left + 64];
        caller.read_exact(&mut sink).await.unwrap();
    };
    let (flushed, ()) = tokio::join!(pump.flush(), read);
    flushed.unwrap();
    assert!(pump.awaits_room && pump.has_room(), "whoever waits is told");
}
