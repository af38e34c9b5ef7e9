//! Which of the sleeping senders has to wake.

use std::time::Instant;

/// The senders that sleep, each at its number.
#[derive(Debug)]
pub(super) struct Wakeups {
    asleep: Vec<Option<Sleep>>,
}

#[derive(Debug, Clone, Copy)]
struct Sleep {
    /// When it wakes without being woken.
    until: Option<Instant>,
}

impl Wakeups {
    pub(super) fn new(senders: usize) -> Self {
        Self { asleep: vec![None; senders] }
    }

    pub(super) fn awake(&mut self, sender: usize) {
        if let Some(sleep) = self.asleep.get_mut(sender) {
            *sleep = None;
        }
    }

    pub(super) fn asleep(&mut self, sender: usize, until: Option<Instant>) {
        if let Some(sleep) = self.asleep.get_mut(sender) {
            *sleep = Some(Sleep { until });
        }
    }

    /// Whether a sleeping sender wakes by then.
    pub(super) fn is_watched(&self, due: Instant) -> bool {
        self.asleep.iter().flatten().any(|sleep| sleep.until.is_some_and(|until| until <= due))
    }

    /// The sender to wake for work: one that does not watch the clock, if there is one, or another
    /// would have to wake only to watch it instead.
    pub(super) fn for_work(&self) -> Option<usize> {
        self.choose(|sleep| sleep.until.is_none())
    }

    /// The sender to wake to watch the clock: one that does so already, if there is one.
    pub(super) fn for_clock(&self) -> Option<usize> {
        self.choose(|sleep| sleep.until.is_some())
    }

    fn choose(&self, preferred: impl Fn(&Sleep) -> bool) -> Option<usize> {
        let asleep =
            || (0..).zip(&self.asleep).filter_map(|(sender, it)| Some((sender, it.as_ref()?)));
        let best = asleep().find(|(_, sleep)| preferred(sleep)).or_else(|| asleep().next());
        best.map(|(sender, _)| sender)
    }
}
