//! Where a run takes its decisions from: everything random in it goes through here, so that a run
//! can be recorded, replayed, shrunk, and enumerated.

/// A source of decisions that remembers them.
#[derive(Debug)]
pub struct Choices {
    source: Source,
    taken: Vec<u32>,
    /// How many ways there were at each decision.
    ways: Vec<u32>,
}

#[derive(Debug)]
enum Source {
    Random(fastrand::Rng),
    /// These, then zeros: zero is always the plainest way.
    Recorded(Vec<u32>),
}

impl Choices {
    /// Random decisions: the same seed gives the same ones.
    #[must_use]
    pub fn random(seed: u64) -> Self {
        Self::new(Source::Random(fastrand::Rng::with_seed(seed)))
    }

    /// These decisions, and the plainest after them.
    #[must_use]
    pub fn recorded(taken: Vec<u32>) -> Self {
        Self::new(Source::Recorded(taken))
    }

    fn new(source: Source) -> Self {
        Self { source, taken: Vec::new(), ways: Vec::new() }
    }

    /// One of `0..ways`.
    pub fn pick(&mut self, ways: u32) -> u32 {
        let choice = match &mut self.source {
            Source::Random(random) => random.u32(0..ways),
            Source::Recorded(taken) => taken.get(self.taken.len()).map_or(0, |it| it % ways),
        };
        self.taken.push(choice);
        self.ways.push(ways);
        choice
    }

    /// True in `percent` of all cases.
    pub fn happens(&mut self, percent: u32) -> bool {
        self.pick(100) >= 100 - percent.min(100)
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.pick(u32::try_from(among.len()).unwrap_or(1)) as usize]
    }

    /// The decisions so far.
    #[must_use]
    pub fn taken(&self) -> &[u32] {
        &self.taken
    }

    /// The next decisions in an enumeration of all of them; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Vec<u32>> {
        let (mut taken, mut ways) = (self.taken, self.ways);
        while let (Some(last), Some(of)) = (taken.pop(), ways.pop()) {
            if last + 1 < of {
                taken.push(last + 1);
                return Some(taken);
            }
        }
        None
    }
}
