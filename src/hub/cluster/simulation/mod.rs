//! Nodes, one stream and clients, in any order, with connections that break, nodes that die and
//! messages that go ahead: who goes on has everything once and in the order of the stream.

mod world;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use world::World;

const NODES: usize = 3;
const CLIENTS: usize = 4;
const ROOMS: [&str; 2] = ["a", "b"];

#[derive(Debug, Clone)]
enum Step {
    /// A node says something: to a room or to everybody, but not to this client.
    Say {
        node: usize,
        room: usize,
        but: usize,
    },
    /// Redis does the next thing that it was told, and answers.
    Do {
        node: usize,
    },
    /// The same, and the answer is on its way.
    DoUnheard {
        node: usize,
    },
    /// The connection breaks, and another is made.
    Break {
        node: usize,
    },
    /// Redis does what came over a connection that is no more.
    DoLate {
        node: usize,
    },
    /// Redis fails over, and has lost the newest entries.
    Lose {
        count: usize,
    },
    /// What Redis has answered and does not come is looked for.
    SayAgain {
        node: usize,
    },
    Read {
        node: usize,
        count: usize,
    },
    /// Nothing waits for Redis, or everything does again.
    Ahead {
        node: usize,
        is_so: bool,
    },
    Crash {
        node: usize,
    },
    Take {
        client: usize,
        count: usize,
    },
    /// What a client would leave is kept again.
    Keep {
        client: usize,
    },
    Cut {
        client: usize,
    },
    Come {
        client: usize,
        node: usize,
    },
    /// What a client that has come waits for goes on.
    Enter {
        client: usize,
    },
    /// After a failover, clients come back and see for themselves.
    Close {
        node: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (node, client) = (0..NODES, 0..CLIENTS);
    prop_oneof![
        8 => (node.clone(), 0..=ROOMS.len(), 0..CLIENTS * 2)
            .prop_map(|(node, room, but)| Step::Say { node, room, but }),
        8 => node.clone().prop_map(|node| Step::Do { node }),
        4 => node.clone().prop_map(|node| Step::DoUnheard { node }),
        3 => node.clone().prop_map(|node| Step::Break { node }),
        3 => node.clone().prop_map(|node| Step::DoLate { node }),
        1 => (1usize..4).prop_map(|count| Step::Lose { count }),
        1 => node.clone().prop_map(|node| Step::SayAgain { node }),
        9 => (node.clone(), 1usize..4).prop_map(|(node, count)| Step::Read { node, count }),
        2 => (node.clone(), any::<bool>()).prop_map(|(node, is_so)| Step::Ahead { node, is_so }),
        1 => node.clone().prop_map(|node| Step::Crash { node }),
        6 => (client.clone(), 0usize..4).prop_map(|(client, count)| Step::Take { client, count }),
        2 => client.clone().prop_map(|client| Step::Keep { client }),
        3 => client.clone().prop_map(|client| Step::Cut { client }),
        5 => (client.clone(), node.clone())
            .prop_map(|(client, node)| Step::Come { client, node }),
        5 => client.prop_map(|client| Step::Enter { client }),
        1 => node.prop_map(|node| Step::Close { node }),
    ]
}

/// What may happen.
#[derive(Debug, Clone, Copy)]
struct Rules {
    /// Old connections cannot be ended: what came over them may be done later.
    lingers: bool,
    /// Failovers lose what was written last.
    loses: bool,
    /// Of what stands before, so much is looked at.
    window: usize,
}

fn run(rules: Rules, steps: &[Step]) -> usize {
    let mut world = World::new(rules);
    steps.iter().for_each(|step| world.run(step));
    world.settle();
    if !rules.loses {
        world.expect_all();
    }
    world.recovered
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Who is new looks at little of what stands before: there is nothing to know of it.
    #[test]
    fn everything_comes_once(steps in steps()) {
        run(Rules { lingers: false, loses: false, window: 2 }, &steps);
    }

    /// What stands in the stream twice is known by looking far enough.
    #[test]
    fn what_is_done_late_comes_once(steps in steps()) {
        run(Rules { lingers: true, loses: false, window: usize::MAX }, &steps);
    }

    /// Who has what Redis has lost does not hear it again.
    #[test]
    fn what_a_failover_loses_comes_no_more_than_once(steps in steps()) {
        run(Rules { lingers: false, loses: true, window: usize::MAX }, &steps);
    }
}

/// What was fetched for a client is lost before it goes on, and said again.
#[test]
fn what_was_fetched_may_be_lost() {
    let say = |node| Step::Say { node, room: 0, but: 0 };
    let mut steps = vec![say(2), Step::Do { node: 2 }, Step::Read { node: 0, count: 1 }];
    steps.extend([Step::Lose { count: 1 }, say(0), Step::Come { client: 3, node: 0 }]);
    steps.extend([Step::DoUnheard { node: 0 }, Step::Enter { client: 3 }]);
    steps.push(Step::Lose { count: 1 });
    run(Rules { lingers: false, loses: true, window: usize::MAX }, &steps);
}

fn run_failover(steps: &[Step]) {
    run(Rules { lingers: false, loses: true, window: usize::MAX }, steps);
}

/// The first that a node reads of a line is not the first that was said: that comes later.
#[test]
fn what_was_lost_before_the_first_that_is_read_comes() {
    let say = |node| Step::Say { node, room: 0, but: 0 };
    let read = |node, count| Step::Read { node, count };
    let mut steps = vec![say(0), Step::Do { node: 0 }, Step::Lose { count: 1 }, say(0)];
    steps.extend([Step::Do { node: 0 }, Step::Read { node: 0, count: 1 }]);
    // The client that it goes ahead for has an offset again, and goes on.
    steps.extend([Step::Ahead { node: 0, is_so: true }, Step::SayAgain { node: 0 }]);
    steps.extend([Step::Ahead { node: 0, is_so: false }, Step::Do { node: 0 }]);
    steps.extend([read(0, 1), say(0), Step::Do { node: 0 }, read(0, 1)]);
    steps.extend([Step::Come { client: 3, node: 1 }, Step::Take { client: 3, count: 9 }]);
    steps.extend([Step::Come { client: 3, node: 0 }, Step::Enter { client: 3 }]);
    run_failover(&steps);
}

/// Who has what was lost and what was written since goes on nowhere: the first of them comes again.
#[test]
fn what_was_lost_and_heard_comes_behind_what_was_said_later() {
    let say = |but| Step::Say { node: 2, room: 0, but };
    let read = Step::Read { node: 1, count: 1 };
    let take = Step::Take { client: 1, count: 1 };
    let mut steps = vec![say(2), Step::Do { node: 2 }, read.clone(), say(2), take.clone()];
    steps.extend([Step::Lose { count: 1 }, Step::Do { node: 2 }, read, take]);
    steps.push(Step::Crash { node: 1 });
    run_failover(&steps);
}

/// An entry that is gone is not known by standing before one that is there.
#[test]
fn what_is_gone_is_nobodys_place() {
    let say = |but| Step::Say { node: 2, room: 0, but };
    let mut steps = vec![say(0), say(2), Step::Do { node: 2 }, Step::Read { node: 0, count: 1 }];
    steps.extend([Step::DoUnheard { node: 2 }, Step::Read { node: 1, count: 2 }]);
    steps.extend([Step::Lose { count: 2 }, Step::Take { client: 1, count: 2 }]);
    steps.push(Step::Come { client: 1, node: 0 });
    run_failover(&steps);
}

/// It says something: many go on.
#[test]
fn many_go_on() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let rules = Rules { lingers: false, loses: false, window: 2 };
    let recovered = (0..50).map(|_| {
        let steps = steps().new_tree(&mut runner).expect("steps").current();
        run(rules, &steps)
    });
    let recovered: usize = recovered.sum();
    assert!(recovered > 50, "{recovered}");
}
