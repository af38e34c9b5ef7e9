//! How the decoder's buffer grows and shrinks. That it stays within bounds is tested in `frame.rs`.

use stride_core::frame::FrameDecoder;

/// Feeds a string of so many bytes and takes it.
fn pass(decoder: &mut FrameDecoder, length: usize) {
    decoder.feed(format!("\"{}\"", "x".repeat(length - 2)).as_bytes());
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(frame.as_str().len(), length);
    assert!(decoder.next_frame().is_none());
}

#[test]
fn a_buffer_that_is_just_large_enough_does_not_grow() {
    let mut decoder = FrameDecoder::new();
    pass(&mut decoder, 100);
    let capacity = decoder.capacity();
    pass(&mut decoder, capacity);
    assert_eq!(decoder.capacity(), capacity);
    pass(&mut decoder, capacity + 1);
    assert_eq!(decoder.capacity(), 2 * capacity, "it grows by doubling");
}

#[test]
fn a_buffer_of_up_to_64_kib_is_kept() {
    let mut decoder = FrameDecoder::new();
    pass(&mut decoder, 60 << 10);
    let capacity = decoder.capacity();
    pass(&mut decoder, 2);
    assert_eq!(decoder.capacity(), capacity);
}

#[test]
fn a_larger_buffer_is_halved_once_a_quarter_of_it_is_enough() {
    let mut decoder = FrameDecoder::new();
    pass(&mut decoder, 400 << 10);
    for (length, capacity) in [(101 << 10, 400 << 10), (100 << 10, 200 << 10), (2, 64 << 10)] {
        pass(&mut decoder, length);
        assert_eq!(decoder.capacity(), capacity, "after {length} bytes");
    }
}
