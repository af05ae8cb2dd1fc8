//! What one caller may occupy at a time, whatever its grants say: one workload must not take the gateway from the others.
//!
//! Bytes of held bodies are shared by thresholds that follow what is free (Choudhury and Hahne, "Dynamic Queue Length Thresholds for
//! Shared-Memory Packet Switches", 1998), nested: a caller's share is measured by what its namespace has left, that by what its trust domain
//! (issuer, cluster) has, and that by what is free. So whoever comes finds some room however much the others took, and nobody has to be pushed out.
//!
//! **Invariant:** small bodies have a room of their own that large ones cannot take.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_policy::caller::Identity;

/// Most drains at once of one caller.
const DRAINS: u64 = 64;
/// Most errors at once of one caller that wait for the rest of a body.
const LINGERS: u64 = 64;
const ROOM_STEP: u64 = 16 << 10;
/// A body up to this is small.
const SMALL: u64 = 64 << 10;
/// The part of all that small bodies have to themselves is one in this many.
const SMALL_PART: u64 = 8;
/// Callers and groups that are remembered before those that nobody has are dropped.
const REMEMBERED: usize = 4096;

/// Most of what one caller, or all together, may occupy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections of one caller.
    pub(crate) connections: u64,
    /// Calls at once of one caller.
    pub(crate) calls: u64,
    /// Calls at once of all callers together.
    pub(crate) all_calls: u64,
    /// Bytes of bodies that are held, of all callers together.
    pub(crate) held: u64,
    /// The same of one caller.
    pub(crate) held_of_one: u64,
}

/// The usage of every caller that has a connection.
#[derive(Debug)]
pub(crate) struct CallerOccupancies {
    callers: Mutex<Callers>,
    all: Arc<AllCallers>,
}

#[derive(Debug, Default)]
struct Callers {
    usages: HashMap<Identity, Arc<CallerOccupancy>>,
    /// By namespace and by domain.
    groups: HashMap<Box<str>, Arc<HeldCounts>>,
}

#[derive(Debug)]
struct AllCallers {
    bounds: Bounds,
    held: HeldCounts,
}

/// What some callers occupy together: bytes of held bodies, small and large ones apart, and calls.
#[derive(Debug, Default)]
struct HeldCounts([AtomicU64; 3]);

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Size {
    /// Bytes of a small body.
    #[default]
    Small,
    /// Bytes of a large one.
    Large,
    /// Calls.
    Call,
}

impl CallerOccupancies {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let all = Arc::new(AllCallers { bounds, held: HeldCounts::default() });
        Self { callers: Mutex::default(), all }
    }

    /// How many more calls there is room for.
    pub(crate) fn free_calls(&self) -> u64 {
        self.all.bounds.all_calls.saturating_sub(self.all.held.bytes(Size::Call))
    }

    /// The usage of `caller`, shared by all of its connections on all cores.
    pub(crate) fn of(&self, caller: &Identity) -> Arc<CallerOccupancy> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let Callers { usages, groups } = &mut *callers;
        if let Some(usage) = usages.get(caller) {
            return Arc::clone(usage);
        }
        if usages.len() >= REMEMBERED {
            usages.retain(|_, usage| Arc::strong_count(usage) > 1);
            groups.retain(|_, group| Arc::strong_count(group) > 1);
        }
        let mut group = |key: &str| Arc::clone(groups.entry(key.into()).or_default());
        let (namespace, domain) =
            (group(caller.domain_and_namespace().unwrap_or(caller.as_str())), group(caller.domain()));
        let usage = Arc::new(CallerOccupancy {
            connections: AtomicU64::default(),
            drains: AtomicU64::default(),
            lingers: AtomicU64::default(),
            reading: Arc::new(Semaphore::new(1)),
            held: HeldCounts::default(),
            namespace,
            domain,
            all: Arc::clone(&self.all),
        });
        usages.insert(caller.clone(), Arc::clone(&usage));
        usage
    }
}

impl HeldCounts {
    fn of(&self, size: Size) -> &AtomicU64 {
        &self.0[size as usize]
    }

    fn bytes(&self, size: Size) -> u64 {
        self.of(size).load(Ordering::Relaxed)
    }
}

/// What one caller occupies.
#[derive(Debug)]
pub(crate) struct CallerOccupancy {
    connections: AtomicU64,
    drains: AtomicU64,
    lingers: AtomicU64,
    reading: Arc<Semaphore>,
    held: HeldCounts,
    namespace: Arc<HeldCounts>,
    domain: Arc<HeldCounts>,
    all: Arc<AllCallers>,
}

impl CallerOccupancy {
    pub(crate) fn connection(self: &Arc<Self>) -> Option<OccupancySlot> {
        OccupancySlot::take(self, |usage| &usage.connections, self.all.bounds.connections)
    }

    /// A place for one call. What others have under way bounds a caller, its namespace and its trust domain, as it does for held bodies.
    ///
    /// # Errors
    /// Whose bound is reached.
    pub(crate) fn call(self: &Arc<Self>) -> Result<CallSlot, CallsFull> {
        let Bounds { calls, all_calls, .. } = self.all.bounds;
        let place = CallSlot(self.counted(Size::Call, 1));
        if self.held.bytes(Size::Call) > calls {
            Err(CallsFull::Caller)
        } else if self.is_within_share(Size::Call, all_calls) {
            Ok(place)
        } else {
            Err(CallsFull::Gateway)
        }
    }

    pub(crate) fn drain(self: &Arc<Self>) -> Option<OccupancySlot> {
        OccupancySlot::take(self, |usage| &usage.drains, DRAINS)
    }

    pub(crate) fn linger(self: &Arc<Self>) -> Option<OccupancySlot> {
        OccupancySlot::take(self, |usage| &usage.lingers, LINGERS)
    }

    /// The largest body that this caller can hold while nobody else holds any.
    pub(crate) fn largest_body(&self) -> u64 {
        let Bounds { held, held_of_one, .. } = self.all.bounds;
        held_of_one.min(large_room(held) / 3).saturating_sub(ROOM_STEP)
    }

    /// Waits for this caller's turn to have a large body parsed: one at a time, so that its bodies wait for each other,
    /// and those of others do not wait for them.
    pub(crate) async fn reading_turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.reading).acquire_owned().await.ok()
    }

    /// Takes room for `bytes` more of a body that is held.
    fn hold(self: &Arc<Self>, size: Size, bytes: u64) -> Option<HeldBytes> {
        let Bounds { held, held_of_one, .. } = self.all.bounds;
        let room = if size == Size::Small { held / SMALL_PART } else { large_room(held) };
        let taken = self.counted(size, bytes);
        let own_in_all = self.held.bytes(Size::Small) + self.held.bytes(Size::Large);
        (own_in_all <= held_of_one && self.is_within_share(size, room)).then_some(taken)
    }

    /// Counted before it is looked at, so that no two take the same room; given back where it is too much.
    fn counted(self: &Arc<Self>, size: Size, amount: u64) -> HeldBytes {
        for group in self.groups() {
            group.of(size).fetch_add(amount, Ordering::Relaxed);
        }
        HeldBytes { usage: Arc::clone(self), size, bytes: amount }
    }

    fn groups(&self) -> [&HeldCounts; 4] {
        [&self.held, &self.namespace, &self.domain, &self.all.held]
    }

    fn is_within_share(&self, size: Size, room: u64) -> bool {
        let [own, namespace, domain, all] = self.groups().map(|group| group.bytes(size));
        if all > room {
            return false;
        }
        // While nobody else holds anything, a third of it may be one's own: the rest is there for whoever comes.
        if all == own && own <= room / 3 {
            return true;
        }
        // A trust domain may have four times what it leaves free; a namespace two fifths of what its domain has left, which is two
        // thirds of all for one alone; a caller a third of what its namespace has left.
        let left_to_domain = ((room - all) * 4).saturating_sub(domain);
        let left_to_namespace = (left_to_domain * 2 / 5).saturating_sub(namespace);
        own <= left_to_namespace / 3
    }
}

/// What of `held` bytes large bodies may have.
const fn large_room(held: u64) -> u64 {
    held - held / SMALL_PART
}

/// A place among what a caller may have at once; given back on drop.
#[derive(Debug)]
pub(crate) struct OccupancySlot {
    usage: Arc<CallerOccupancy>,
    part: fn(&CallerOccupancy) -> &AtomicU64,
}

impl OccupancySlot {
    fn take(
        usage: &Arc<CallerOccupancy>,
        part: fn(&CallerOccupancy) -> &AtomicU64,
        cap: u64,
    ) -> Option<Self> {
        let before = part(usage).fetch_add(1, Ordering::Relaxed);
        let share = Self { usage: Arc::clone(usage), part };
        (before < cap).then_some(share)
    }
}

impl Drop for OccupancySlot {
    fn drop(&mut self) {
        (self.part)(&self.usage).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no place for another call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallsFull {
    /// This caller has too many.
    Caller,
    /// All callers together have too many.
    Gateway,
}

/// The place of one call among its caller's and everybody's; given back on drop.
#[derive(Debug)]
pub(crate) struct CallSlot(HeldBytes);

impl CallSlot {
    /// Of the caller that it was taken from.
    pub(crate) const fn usage(&self) -> &Arc<CallerOccupancy> {
        &self.0.usage
    }
}

/// What is counted of a caller: bytes that are held, or a call; given back on drop.
#[derive(Debug)]
struct HeldBytes {
    usage: Arc<CallerOccupancy>,
    size: Size,
    bytes: u64,
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        for group in self.usage.groups() {
            group.of(self.size).fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

/// The place that a held body takes up among its caller's and everybody's; given back on drop.
#[derive(Debug, Default)]
pub(crate) struct BufferReservation {
    held: Option<HeldBytes>,
    taken: u64,
    size: Size,
}

impl BufferReservation {
    /// Of a body that will have this many bytes, if that is known.
    pub(crate) fn of(length: Option<u64>) -> Self {
        let size = if length.is_some_and(|length| length > SMALL) { Size::Large } else { Size::Small };
        Self { size, ..Self::default() }
    }

    /// Makes it at least `bytes` large, in steps. False where there is no more to be had.
    pub(crate) fn grow(&mut self, bytes: u64, usage: &Arc<CallerOccupancy>) -> bool {
        if self.taken >= bytes {
            return true;
        }
        let mut step = ROOM_STEP.max(bytes - self.taken);
        if self.size == Size::Small && bytes > SMALL {
            // It was not announced: what it has counts among the large from now on.
            self.size = Size::Large;
            self.held = None;
            step = step.saturating_add(self.taken);
            self.taken = 0;
        }
        let Some(mut more) = usage.hold(self.size, step) else { return false };
        match &mut self.held {
            Some(held) => held.bytes += std::mem::take(&mut more.bytes),
            None => self.held = Some(more),
        }
        self.taken += step;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const BOUNDS: Bounds =
        Bounds { connections: 2, calls: 3, all_calls: 64, held: 64 * MIB, held_of_one: 32 * MIB };

    fn usages() -> CallerOccupancies {
        CallerOccupancies::new(BOUNDS)
    }

    fn of(usages: &CallerOccupancies, caller: &str) -> Arc<CallerOccupancy> {
        usages.of(&format!("spiffe://{caller}").parse().unwrap())
    }

    /// Opens bodies of a megabyte until there is no room for more.
    fn fill(usage: &Arc<CallerOccupancy>) -> Vec<BufferReservation> {
        std::iter::from_fn(|| {
            let mut room = BufferReservation::of(Some(MIB));
            room.grow(MIB, usage).then_some(room)
        })
        .collect()
    }

    #[test]
    fn a_share_over_the_cap_is_refused_and_leaves_nothing_behind() {
        let usages = usages();
        let usage = of(&usages, "a/b");
        let held: Vec<_> = (0..DRAINS).map(|_| usage.drain().unwrap()).collect();
        assert!(usage.drain().is_none());
        assert!(of(&usages, "a/c").drain().is_some());
        drop(held);
        assert!(usage.drain().is_some());
        let (first, second) = (usage.connection(), usage.connection());
        assert!(first.is_some() && second.is_some() && usage.connection().is_none());
        let calls: Vec<_> = std::iter::from_fn(|| usage.call().ok()).collect();
        assert_eq!(calls.len(), 3);
        assert_eq!(usage.call().unwrap_err(), CallsFull::Caller);
        drop(calls);
        assert_eq!(usages.all.held.bytes(Size::Call), 0);
    }

    #[test]
    fn whoever_comes_finds_a_place_for_a_call_however_many_the_others_have() {
        let usages = CallerOccupancies::new(Bounds { calls: 1_000, all_calls: 1_000, ..BOUNDS });
        let fill = |caller: &str| {
            let usage = of(&usages, caller);
            let calls: Vec<_> = std::iter::from_fn(|| usage.call().ok()).collect();
            assert_eq!(usage.call().unwrap_err(), CallsFull::Gateway);
            calls
        };
        let greedy: Vec<_> = (0..40).map(|n| fill(&format!("a/ns/greedy/sa/{n}"))).collect();
        let taken: usize = greedy.iter().map(Vec::len).sum();
        assert!((450..650).contains(&taken), "a namespace leaves room: {taken}");
        assert!(fill("a/ns/victim/sa/x").len() > 30);
        let others: Vec<_> = (0..40).map(|n| fill(&format!("a/ns/{n}/sa/x"))).collect();
        assert!(fill("b/ns/victim/sa/x").len() > 20, "a domain leaves room");
        drop((greedy, others));
        assert_eq!(usages.all.held.bytes(Size::Call), 0);
    }

    #[test]
    fn one_caller_alone_may_hold_a_third_and_everything_comes_back() {
        let usages = usages();
        let usage = of(&usages, "a/ns/x/sa/one");
        let rooms = fill(&usage);
        assert_eq!(rooms.len(), 18, "of 56 MiB for large bodies");
        drop(rooms);
        assert!(usage.largest_body() < 56 * MIB / 3 && usage.largest_body() > 18 * MIB);
        let mut room = BufferReservation::of(Some(usage.largest_body()));
        assert!(room.grow(usage.largest_body(), &usage));
        drop(room);
        assert_eq!(usages.all.held.bytes(Size::Large), 0);
        assert_eq!(fill(&usage).len(), 18);
    }

    #[test]
    fn many_identities_of_one_namespace_leave_room_for_another_and_for_another_domain() {
        let usages = usages();
        let greedy: Vec<_> = (0..20).map(|n| fill(&of(&usages, &format!("a/ns/greedy/sa/{n}")))).collect();
        let all: usize = greedy.iter().map(Vec::len).sum();
        assert!((18..=36).contains(&all), "{all}");
        assert!(!fill(&of(&usages, "a/ns/victim/sa/x")).is_empty());
        assert!(!fill(&of(&usages, "b/ns/victim/sa/x")).is_empty());
    }

    #[test]
    fn many_namespaces_of_one_domain_leave_room_for_another() {
        let usages = usages();
        let _greedy: Vec<_> = (0..40).map(|n| fill(&of(&usages, &format!("a/ns/{n}/sa/x")))).collect();
        let free = 56 * MIB - usages.all.held.bytes(Size::Large);
        assert!(free >= 8 * MIB, "{free}");
        assert!(fill(&of(&usages, "b/ns/victim/sa/x")).len() >= 2);
    }

    #[test]
    fn small_bodies_have_a_room_that_large_ones_cannot_take() {
        let usages = usages();
        let _greedy: Vec<_> = (0..40).map(|n| fill(&of(&usages, &format!("{n}/ns/x/sa/x")))).collect();
        let victim = of(&usages, "a/ns/victim/sa/x");
        let mut room = BufferReservation::of(Some(SMALL));
        assert!(room.grow(SMALL, &victim));
        let mut grows = BufferReservation::of(None);
        assert!(grows.grow(SMALL, &victim));
        let before = usages.all.held.bytes(Size::Small);
        grows.grow(SMALL + 1, &victim);
        assert_eq!(usages.all.held.bytes(Size::Small), before - SMALL, "it is a large one now");
    }
}
