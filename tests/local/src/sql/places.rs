//! Where events lie in the one table that they are all in.

/// Bits of a place that count within its stream; those above are the number of the stream.
const SEQUENCE_BITS: u32 = 40;

/// Bits of a place that tell events of one block from each other: so many are passed over, or read, together.
pub(crate) const BLOCK_BITS: u32 = 10;

/// The place of event `sequence` of the stream with this number.
pub(crate) fn place(stream: i64, sequence: i64) -> i64 {
    stream << SEQUENCE_BITS | sequence
}

/// The stream and the sequence that a place is made of.
pub(crate) fn parts(place: i64) -> (i64, i64) {
    (place >> SEQUENCE_BITS, place & ((1 << SEQUENCE_BITS) - 1))
}

/// The block of the first event of the stream with this number.
pub(crate) fn block(stream: i64) -> i64 {
    block_of(place(stream, 0))
}

/// The block that the event at a place is in.
pub(crate) fn block_of(place: i64) -> i64 {
    place >> BLOCK_BITS
}

/// The place of the first event of the block that is `number`, as SQL.
pub(crate) fn first(number: &str) -> String {
    format!("({number}) << {BLOCK_BITS}")
}

/// Which rows of the table of events are of this stream.
pub(crate) fn of_stream(number: i64) -> String {
    let (from, to) = (place(number, 0), place(number + 1, 0));
    format!("place >= {from} AND place < {to}")
}
