//! What is measured: names, units, and what the hub must reach.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    Memory,
    MemoryProportional,
    MemoryPrivate,
    MemoryTls,
    Connect,
    Upgrade,
    Echo,
    DeliveryOne,
    DeliveryTen,
    DeliveryCrowd,
    Pings,
    AfterBroadcast,
    AfterLeave,
}

#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtMost(f64),
    OfNode(f64),
    None,
}

/// The words of a figure.
pub struct Words {
    /// In hub.json.
    pub case: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub goal: Goal,
}

impl Figure {
    pub const ALL: [Self; 13] = [
        Self::Memory,
        Self::MemoryProportional,
        Self::MemoryPrivate,
        Self::MemoryTls,
        Self::Connect,
        Self::Upgrade,
        Self::Echo,
        Self::DeliveryOne,
        Self::DeliveryTen,
        Self::DeliveryCrowd,
        Self::Pings,
        Self::AfterBroadcast,
        Self::AfterLeave,
    ];

    /// What the chart shows.
    pub const CHARTED: [Self; 8] = [
        Self::Memory,
        Self::Connect,
        Self::Upgrade,
        Self::Echo,
        Self::DeliveryOne,
        Self::DeliveryTen,
        Self::DeliveryCrowd,
        Self::Pings,
    ];

    pub fn words(self) -> Words {
        use Goal::{AtMost, OfNode};
        let (case, title, unit, goal) = match self {
            Self::Memory => ("memory", "Memory per idle WebSocket", "KiB", AtMost(4.0)),
            Self::MemoryProportional => ("memory-pss", "… as PSS", "KiB", Goal::None),
            Self::MemoryPrivate => ("memory-private", "… private", "KiB", Goal::None),
            Self::MemoryTls => ("memory-tls", "… over TLS", "KiB", AtMost(12.0)),
            Self::Connect => ("connect", "CPU per connect, WebSocket only", "µs", OfNode(0.20)),
            Self::Upgrade => {
                ("upgrade", "CPU per connect, polling then upgrade", "µs", OfNode(0.25))
            }
            Self::Echo => ("echo", "CPU per acknowledged event", "µs", OfNode(0.35)),
            Self::DeliveryOne => {
                ("delivery-one", "CPU per delivery 1 → 1,000, one at a time", "µs", OfNode(0.45))
            }
            Self::DeliveryTen => {
                ("delivery-ten", "CPU per delivery 1 → 1,000, ten in flight", "µs", OfNode(0.15))
            }
            Self::DeliveryCrowd => {
                ("delivery-crowd", "CPU per delivery 1 → 10,000, one at a time", "µs", Goal::None)
            }
            Self::Pings => {
                ("pings", "CPU for pings of 10,000 idle sockets", "ms/min", OfNode(0.15))
            }
            Self::AfterBroadcast => {
                ("memory-after-broadcast", "Memory after broadcasts ÷ before", "×", AtMost(1.1))
            }
            Self::AfterLeave => {
                ("memory-after-leave", "Memory after all left ÷ before", "×", AtMost(1.1))
            }
        };
        Words { case, title, unit, goal }
    }
}
