//! Random orders of reserving, settling, releasing and waiting, against models that keep every hold for ever.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Reserve(u64),
    /// Settle the n-th open hold at this many percent of it.
    Settle(usize, u64),
    Release(usize),
    /// Seconds the clock moves; only some tests let it go back.
    Wait(i64),
}

fn steps(back: i64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0_u64..60).prop_map(Step::Reserve),
        3 => (any::<usize>(), 0_u64..=100).prop_map(|(n, percent)| Step::Settle(n, percent)),
        1 => any::<usize>().prop_map(Step::Release),
        3 => prop_oneof![-back..=40, -back..=4_000, -back..=90_000].prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        (1_i64..20_000, prop::sample::select(vec![1_u32, 7, 60])).prop_map(|(seconds, slices)| {
            Window::Rolling { length: SignedDuration::from_secs(seconds), slices }
        }),
        prop::sample::select(vec![Per::Minute, Per::Hour, Per::Day, Per::Week])
            .prop_map(|per| calendar(per, "Europe/Berlin")),
    ]
}

/// One hold as the models remember it.
#[derive(Debug, Clone)]
struct Lived {
    opened: Timestamp,
    slice: WindowSlot,
    held: u64,
    spent: u64,
}

impl Lived {
    fn amount(&self) -> u64 {
        self.held + self.spent
    }
}

const CAP: u64 = 150;

/// A counter beside the memory of everything that was ever reserved in it.
struct World {
    window: Window,
    counter: Counter,
    now: Timestamp,
    lived: Vec<Lived>,
}

impl World {
    fn new(window: Window) -> Self {
        // The night before Berlin's clocks go forward.
        Self { window, counter: Counter::new(), now: at("2026-03-28T20:00Z"), lived: Vec::new() }
    }

    /// Takes the step; `true` where an amount was admitted.
    fn take(&mut self, step: &Step) -> bool {
        match *step {
            Step::Reserve(amount) => match self.counter.reserve(&self.window, CAP, amount, self.now) {
                Ok(slice) => {
                    self.lived.push(Lived { opened: self.now, slice, held: amount, spent: 0 });
                    return true;
                }
                Err(refused) => self.explain(refused, amount),
            },
            Step::Settle(n, percent) => self.finish(n, percent),
            Step::Release(n) => self.finish(n, 0),
            Step::Wait(seconds) => self.now += SignedDuration::from_secs(seconds),
        }
        false
    }

    fn finish(&mut self, n: usize, percent: u64) {
        let mut open: Vec<_> = self.lived.iter_mut().filter(|lived| lived.held > 0).collect();
        if open.is_empty() {
            return;
        }
        let n = n % open.len();
        let lived = &mut open[n];
        lived.spent = lived.held * percent / 100;
        assert_eq!(self.counter.settle(lived.slice, lived.held, lived.spent), 0);
        lived.held = 0;
    }

    /// A refusal must be true, and must name its cause.
    fn explain(&mut self, refused: Refused, amount: u64) {
        let Usage { spent, held } = self.counter.usage(&self.window, self.now);
        match refused {
            Refused::TooLarge => assert!(amount > CAP),
            Refused::Exhausted { .. } => assert!(spent + amount > CAP),
            Refused::Held { .. } => assert!(spent + amount <= CAP && spent + held + amount > CAP),
        }
    }

    /// What the models say opened after `since` and not after `now`.
    fn opened(&self, since: Timestamp, what: impl Fn(&Lived) -> u64) -> u64 {
        let within = self.lived.iter().filter(|lived| lived.opened > since && lived.opened <= self.now);
        within.map(what).sum()
    }
}

proptest! {
    #[test]
    fn spent_and_held_never_exceed_the_cap(window in windows(), steps in steps(100_000)) {
        let mut world = World::new(window);
        for step in steps {
            world.take(&step);
            let usage = world.counter.usage(&world.window, world.now);
            prop_assert!(usage.spent + usage.held <= CAP, "{usage:?}");
        }
    }

    #[test]
    fn a_calendar_window_counts_exactly_what_opened_in_it(steps in steps(0)) {
        let mut world = World::new(calendar(Per::Day, "Europe/Berlin"));
        for step in steps {
            world.take(&step);
            let start = world.window.period(world.now).start;
            let since = Timestamp::from_millisecond(start - 1).unwrap();
            let usage = world.counter.usage(&world.window, world.now);
            prop_assert_eq!(usage.spent, world.opened(since, |lived| lived.spent));
            prop_assert_eq!(usage.held, world.opened(since, |lived| lived.held));
        }
    }

    #[test]
    fn a_rolling_window_forgets_at_most_one_slice_late_and_never_early(
        length in 60_i64..20_000, slices in prop::sample::select(vec![1_u32, 7, 60]), steps in steps(0),
    ) {
        let window = Window::Rolling { length: SignedDuration::from_secs(length), slices };
        let mut world = World::new(window);
        let length = SignedDuration::from_secs(length);
        let slice = length / i32::try_from(slices).unwrap() + SignedDuration::from_millis(1);
        for step in steps {
            let admitted = world.take(&step);
            let exact = world.opened(world.now - length, Lived::amount);
            let late = world.opened(world.now - length - slice, Lived::amount);
            let usage = world.counter.usage(&world.window, world.now);
            prop_assert!(exact <= usage.spent + usage.held && usage.spent + usage.held <= late);
            // The naive window would have let in all that was let in.
            prop_assert!(!admitted || exact <= CAP);
        }
    }

    #[test]
    fn what_is_settled_and_what_is_open_add_up_to_what_was_admitted(steps in steps(0)) {
        let mut world = World::new(Window::rolling(SignedDuration::from_hours(24 * 365)));
        for step in steps {
            world.take(&step);
            let usage = world.counter.usage(&world.window, world.now);
            prop_assert_eq!(usage.spent, world.lived.iter().map(|lived| lived.spent).sum::<u64>());
            prop_assert_eq!(usage.held, world.lived.iter().map(|lived| lived.held).sum::<u64>());
        }
    }

    #[test]
    fn restored_charges_count_as_if_they_had_been_lived_through(
        window in windows(), steps in steps(0), later in prop::collection::vec(0_i64..50_000, 0..8),
    ) {
        let mut world = World::new(window);
        for step in &steps {
            world.take(step);
        }
        while world.lived.iter().any(|lived| lived.held > 0) {
            world.finish(0, 100);
        }
        let mut restored = Counter::new();
        for lived in world.lived.iter().rev() {
            restored.restore(&world.window, lived.opened, lived.spent);
        }
        for seconds in later {
            world.now += SignedDuration::from_secs(seconds);
            let usage = world.counter.usage(&world.window, world.now);
            prop_assert_eq!(restored.usage(&world.window, world.now), usage);
            prop_assert_eq!(
                restored.reserve(&world.window, CAP, CAP, world.now).err(),
                world.counter.reserve(&world.window, CAP, CAP, world.now).err()
            );
        }
    }
}
