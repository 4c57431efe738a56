//! A second opinion on what clients may write: another implementation's, and where ours differs.

#[cfg(test)]
mod tests {
    use engineioxide_core::{Packet as Engine, ProtocolVersion};
    use proptest::prelude::*;
    use socketioxide_core::Value;
    use socketioxide_core::packet::{Packet, PacketData};
    use socketioxide_core::parser::{Parse as _, ParseConfig, ParseError, ParserState};
    use socketioxide_parser_common::CommonParser;

    use crate::hub::engine::Version;
    use crate::hub::engine::packet as engine;
    use crate::hub::packet::{ATTACHMENTS_MAX, Event, Head, Kind};

    /// A packet as both can say it: kind, attachments, namespace, acknowledgement, data.
    type Said = (Kind, usize, String, Option<u64>, String);

    fn ours(text: &str) -> Option<Said> {
        let Head { kind, attachments, namespace, ack, data } = Head::parse(text).ok()?;
        Some((kind, attachments, namespace.to_owned(), ack, data.to_owned()))
    }

    fn theirs(text: &str) -> Option<Said> {
        let state = ParserState::default();
        let config =
            ParseConfig { max_incoming_binaries: ATTACHMENTS_MAX, ..ParseConfig::default() };
        let (packet, attachments) =
            match CommonParser.decode_str(&config, &state, text.to_owned().into()) {
                Ok(packet) => (packet, 0),
                Err(ParseError::NeedsMoreBinaryData) => {
                    let partial = state.partial_bin_packet.lock().expect("whole").take();
                    let count =
                        state.incoming_binary_cnt.load(std::sync::atomic::Ordering::Relaxed);
                    (partial.expect("the packet that needs more").packet, count)
                }
                Err(_) => return None,
            };
        let Packet { inner, ns } = packet;
        let (kind, ack, data) = match inner {
            PacketData::Connect(data) => (Kind::Connect, None, data),
            PacketData::Disconnect => (Kind::Disconnect, None, None),
            PacketData::Event(data, ack) | PacketData::BinaryEvent(data, ack) => {
                (Kind::Event, ack, Some(data))
            }
            PacketData::EventAck(data, ack) | PacketData::BinaryAck(data, ack) => {
                (Kind::Ack, Some(ack), Some(data))
            }
            PacketData::ConnectError(_) => return None,
        };
        let ack = ack.map(|ack| u64::try_from(ack).expect("read from digits"));
        let data = data.as_ref().and_then(Value::as_str).map(|text| text.to_string());
        Some((kind, attachments, ns.to_string(), ack, data.unwrap_or_default()))
    }

    /// Whether a difference is one that is known, and wanted.
    fn is_known(text: &str, ours: Option<&Said>, theirs: Option<&Said>) -> bool {
        match (ours, theirs) {
            // Read here, and refused for what it is; Node reads it, too.
            (Some((Kind::ConnectError, ..)), None) => true,
            // An acknowledgement of nothing: Node takes and forgets it.
            (Some((Kind::Ack, _, _, None, _)), None) => true,
            // A packet with attachments that has none is no such packet: Node refuses it. And no client
            // counts beyond 64 bits.
            (None, Some((_, count, ..))) => {
                *count == 0 && text.starts_with(['5', '6']) || digits(text) > 19
            }
            (Some((kind, _, namespace, ack, data)), theirs) => {
                let Some((their_kind, _, their_namespace, their_ack, their_data)) = theirs else {
                    // An acknowledgement whose id is followed by no array, or has 64 bits.
                    let long = ack.is_some_and(|ack| i64::try_from(ack).is_err());
                    return *kind == Kind::Ack && (long || !data.starts_with(['[', '{']));
                };
                // They know an id only before an array or an object, and only up to 63 bits; they do
                // not keep what stands behind a DISCONNECT, nor a CONNECT's id.
                let same = kind == their_kind && namespace == their_namespace;
                let id = ack == their_ack
                    || !data.starts_with(['[', '{'])
                    || ack.is_some_and(|ack| i64::try_from(ack).is_err())
                    || matches!(kind, Kind::Connect | Kind::Disconnect);
                same && id && (data == their_data || *kind == Kind::Disconnect)
            }
            _ => false,
        }
    }

    fn digits(text: &str) -> usize {
        let longest = text.split(|sign: char| !sign.is_ascii_digit()).map(str::len).max();
        longest.unwrap_or_default()
    }

    fn check(text: &str) -> Result<(), String> {
        let (ours, theirs) = (ours(text), theirs(text));
        if ours == theirs || is_known(text, ours.as_ref(), theirs.as_ref()) {
            return Ok(());
        }
        Err(format!("{text:?} is {ours:?} to us and {theirs:?} to them"))
    }

    #[test]
    fn what_clients_write_means_the_same_to_both() {
        for text in [
            "0",
            "0{}",
            "0/chat",
            "0/chat,{\"token\":\"x\"}",
            "1",
            "1/chat,",
            "2[\"a\",1]",
            "2/chat,7[\"a\"]",
            "2/chat,[\"a\"]",
            "2[\"a\",\"/b,c\"]",
            "312[]",
            "3/chat,0[null]",
            "51-[\"a\",{\"_placeholder\":true,\"num\":0}]",
            "510-/chat,3[\"a\"]",
            "61-/chat,3[{\"_placeholder\":true,\"num\":0}]",
            "7",
            "",
            "5[\"a\"]",
            "511-[\"a\"]",
            "5-[\"a\"]",
        ] {
            assert_eq!(ours(text), theirs(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn heads_mean_the_same(text in "[0-7]([0-9]{0,3}-)?(/[a-z/?=é]{0,4},?)?[0-9]{0,22}(\\[|\\{|\")?\\PC{0,6}") {
            prop_assert_eq!(check(&text), Ok(()));
        }

        #[test]
        fn anything_means_the_same(text in "[0-6]?[0-9/,\\-\\[a\"é]{0,10}") {
            prop_assert_eq!(check(&text), Ok(()));
        }

        #[test]
        fn names_are_read_alike(name in ".{0,8}", rest in proptest::collection::vec(0u8..3, 0..3)) {
            let data = serde_json::to_string(&(&name, rest)).expect("JSON");
            let value = Value::Str(data.clone().into(), None);
            let theirs = CommonParser.read_event(&value).ok().map(str::to_owned);
            match Event::parse(&data) {
                // They read no escapes in it.
                Ok(_) if data.contains('\\') => prop_assert_eq!(theirs, None),
                Ok(event) => prop_assert_eq!(theirs.as_deref(), Some(event.name.as_ref())),
                // They reserve no names.
                Err(_) => prop_assert!(name.starts_with(['c', 'd', 'n', 'r'])),
            }
        }

        #[test]
        fn engine_packets_are_read_alike(text in "(b4?|[0-7])[a-zA-Z0-9+/=é]{0,9}|\\PC{0,3}") {
            for (version, protocol) in [(Version::V3, ProtocolVersion::V3), (Version::V4, ProtocolVersion::V4)] {
                let ours = engine::parse_text(version, &text).ok();
                let theirs = Engine::parse(protocol, text.clone()).ok();
                prop_assert!(is_alike(ours.as_ref(), theirs.as_ref()), "{:?} {:?}", ours, theirs);
            }
        }
    }

    fn is_alike(ours: Option<&engine::Packet<'_>>, theirs: Option<&Engine>) -> bool {
        use engine::Packet as Ours;
        match (ours, theirs) {
            (None, None) => true,
            // They read it only as clients do; here it is read, and then ignored as Node ignores it.
            (Some(Ours::Open), None) => true,
            (Some(Ours::Close), Some(Engine::Close))
            | (Some(Ours::Upgrade), Some(Engine::Upgrade))
            | (Some(Ours::Noop), Some(Engine::Noop)) => true,
            (Some(Ours::Ping(data)), Some(Engine::Ping)) => *data != "probe",
            (Some(Ours::Pong(data)), Some(Engine::Pong)) => *data != "probe",
            (Some(Ours::Ping(data)), Some(Engine::PingUpgrade))
            | (Some(Ours::Pong(data)), Some(Engine::PongUpgrade)) => *data == "probe",
            (Some(Ours::Text(text)), Some(Engine::Message(theirs))) => *text == theirs.as_str(),
            (Some(Ours::Binary(data)), Some(Engine::Binary(theirs) | Engine::BinaryV3(theirs))) => {
                data.as_ref() == theirs.as_ref()
            }
            _ => false,
        }
    }
}
