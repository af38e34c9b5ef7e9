//! Guides: what delivery means, which test proves which promise, how to tune a collector, how to deploy it, how to watch
//! it, how events survive on disk, and what the files there look like.

/// What "delivered" and "lost" mean, and what becomes of an event when something fails.
///
/// An event is *accepted* when `collect` returns `Ok`. From then on it is *pending*, until it ends exactly
/// once:
///
/// * *delivered*: a request that held it got a success (2xx);
/// * *lost*: with a [`LossReason`](crate::LossReason), and handed to
///   [`on_lost`](crate::Builder::on_lost) as a [`LostBatch`](crate::LostBatch), with the bytes of the
///   events, the server's status and message or the transport's error. Its `delivery` tells whether the
///   server may have stored the events.
///
/// `accepted = delivered + lost + pending` in every [`Report`](crate::Report). With a spool, what an earlier
/// process left on disk counts, too, as `recovered`.
///
/// # At least once, or exactly once
///
/// When the response to a request is lost, the collector cannot know whether the server stored the
/// events, and sends the same bytes again: delivery is *at least once*. A Stride stores an event with an
/// `$id` once, however often it is sent. So give your events an `$id`
/// ([`Event::id`](stride_core::Event::id)), or let [`stamp`](crate::Builder::stamp) do it.
///
/// # What fails, and what it costs
///
/// | the server | what happens |
/// |---|---|
/// | 408, 425, 429, 5xx but 501 and 505; a connection that breaks; a time-out | tried again for [`retry_for`](crate::Builder::retry_for) (120 s), then lost as `Expired` |
/// | `Retry-After` | obeyed, up to 300 s, which do not count towards `retry_for` |
/// | 400, 422 | the batch is narrowed down to the event at fault, which alone is lost as `Rejected` |
/// | 413 | the batch is halved, and later batches are smaller; one event that is too large is lost as `TooLarge` |
/// | 401 | everything is kept, and one request at a time probes whether the key is valid again |
/// | 403 | the same for the stream that was refused |
/// | any other refusal | the batch is lost as `Refused` |
/// | what cannot pass: a transport without TLS for `https`, a certificate that is not trusted | lost at once as `Undeliverable`, with the error |
///
/// Each stream has its own retries and delays. A stream that the server refuses, fails or stalls on does
/// not delay the others.
///
/// # Order
///
/// The order of events is kept within a batch. Batches of a stream may overtake each other, when one of
/// them is retried or several are in flight; not with [`ordered`](crate::Builder::ordered), which sends
/// one batch of a stream at a time.
pub mod delivery {}

/// What a collector promises, and the test that proves it.
///
/// The tests are in this crate, in `tests/suite` (over real transports and a server) and in `tests/sim` (the
/// batcher in virtual time, under a server that fails at random) of the repository. Its gate checks that each
/// of them ran.
///
/// | promise | test |
/// |---|---|
/// | `collect` never waits for the network; at the memory budget it returns `Full`, at once | `pystride_5_collect_does_not_block_when_full_and_a_long_list_is_bounded_like_single_events`, `gostride_10_failures_are_reported_and_a_slow_server_blocks_nobody` |
/// | every accepted event ends once: delivered, or lost with its cause and handed to `on_lost` | `what_nobody_takes_is_lost_after_120_s_and_handed_over`, `seeds_find_nothing` |
/// | `accepted = delivered + lost + pending`, in every report | `the_totals_balance_at_every_moment`, `totals_balance_at_every_moment` |
/// | a flush covers what was accepted before it | `a_flush_waits_for_what_is_in_flight_but_not_for_later_events`, `a_flush_covers_what_was_accepted_before_it` |
/// | what is accepted beside a stop is sent, or counted as lost | `pystride_6_a_collect_that_races_with_stop_is_accounted_for_or_refused`, `what_is_accepted_beside_a_stop_is_sent` |
/// | an event that cannot be serialised, or is too large, is an error of its call and of nothing else | `pystride_4_what_cannot_be_collected_is_an_error_of_its_call_and_of_nothing_else` |
/// | what fails for now is sent again, with pauses that double, for up to `retry_for` | `pystride_2_a_batch_that_fails_for_now_is_retried_and_a_flush_waits_for_it`, `c4_the_delay_of_a_lane_doubles_whatever_succeeds_elsewhere` |
/// | time that the server asked for does not age an event | `c9_a_pause_that_the_server_asks_for_does_not_age_a_batch` |
/// | a stamped event keeps its `$id` and `$timestamp`, however often it is sent | `stamped_events_keep_their_id_and_time_however_often_they_are_sent` |
/// | a stream in trouble does not hold up the others | `c3_a_lane_that_fails_or_stalls_holds_up_no_other`, `with_one_sender_every_other_request_is_left_to_healthy_lanes` |
/// | a server that fails as a whole gets few requests, however many streams there are | `however_many_lanes_there_are_a_failing_server_gets_few_requests` |
/// | one bad event is lost alone, in few requests | `c1_one_event_at_fault_among_a_thousand_is_lost_alone_and_in_few_requests`, `c1_a_lane_of_which_everything_is_rejected_takes_64_requests_and_then_8` |
/// | 413 halves the batch, and later batches are smaller | `c1_a_413_halves_the_batch_and_is_remembered` |
/// | a key that is refused pauses, and loses nothing when it is valid again in time | `c2_a_key_that_is_refused_for_a_while_loses_nothing` |
/// | what cannot pass is lost at once, with its error | `c14_what_cannot_pass_is_lost_at_once_with_its_error` |
/// | `flush` and `stop` return by their deadline, whatever the server does | `flush_and_stop_return_by_their_deadline_though_the_server_never_answers`, `c5_a_stop_and_a_drop_keep_their_deadline_with_many_batches` |
/// | memory stays within the budget, whatever the streams and sizes | `memory_stays_within_its_budget_while_the_server_is_down`, `c11_names_are_within_the_budget_and_are_given_back` |
/// | what is open is sent when memory runs out | `c7_what_is_open_is_sent_when_memory_runs_out` |
/// | waiting for room is first come, first served | `c10_a_large_event_is_accepted_though_small_ones_keep_coming`, `waiters_for_room_are_all_served` |
/// | `stats` and `flush` hold up no `collect`, however many streams there are | `c12_stats_and_flush_hold_up_no_collect` |
/// | `on_lost` and wakers may collect, and may panic; a slow `on_lost` holds up one sender at most | `on_lost_may_panic_collect_and_flush`, `c13_a_waker_may_collect_by_name`, `c16_a_slow_report_holds_up_one_sender` |
/// | a transport that panics loses nothing | `a_transport_that_panics_loses_nothing` |
/// | all of this on threads and on both kinds of runtimes, behind a network that cuts, resets, stalls and throttles, with a server that is killed and started again | `nothing_hangs_and_every_event_is_accounted_for_behind_a_faulty_network`, `two_hundred_rounds_behind_a_faulty_network` |
/// | a tokio runtime that ends loses nothing unseen | `the_end_of_the_runtime_ends_the_collector_and_loses_nothing_unseen` |
/// | `ordered` keeps the order of a stream, over retries, narrowing and several threads | `an_ordered_stream_arrives_in_order_over_retries_narrowing_and_from_many_threads`, `seeds_find_nothing` |
/// | an observer is told what happens, and may collect and panic | `an_observer_is_told_what_happens_may_collect_and_may_panic` |
/// | an idle collector does nothing | `pystride_1_an_idle_collector_does_not_spin` |
/// | an event allocates nothing in steady state | `an_event_allocates_nothing_and_a_batch_little` |
/// | no event and no key is in `Debug` output | `debug_output_holds_no_event_and_no_key` |
/// | with a spool that writes ahead: what was reported as safe survives a kill of the process, and is stored once | `what_was_reported_safe_survives_five_kills`, `what_was_reported_safe_survives_two_hundred_kills` |
/// | with a spool: what a `stop` cannot deliver is sent by the next collector | `what_a_stop_leaves_on_disk_is_sent_by_the_next_collector` |
/// | overflow touches no file while memory suffices | `in_good_times_overflow_touches_no_file_and_write_ahead_leaves_none` |
/// | many times the memory goes to disk and is delivered, within the memory budget | `overflow_takes_many_times_the_memory_and_gives_it_all_back`, `an_outage_that_fills_the_disk_takes_no_more_memory_than_the_budget_and_a_fifth` |
/// | at its bound, a spool drops the oldest events and reports them, or refuses new ones | `a_full_spool_drops_its_oldest_events_and_reports_them`, `a_spool_that_refuses_keeps_what_it_has` |
/// | damage on disk loses what is damaged, and nothing uncounted | `each_flipped_bit_loses_one_record_at_most_and_is_counted`, `damaged_files_lose_nothing_uncounted_in_100_000_cases` |
/// | a folder is held by one collector at a time, and taken over from a dead process | `two_processes_never_share_a_slot`, `the_slot_of_a_dead_process_is_taken_over`, `a_slot_that_is_used_again_while_a_sender_still_sends_loses_nothing` |
/// | a start does not wait for what is on disk, however much there is | `a_start_with_700_segments_sends_before_it_has_looked_into_the_second` |
/// | what was done is not sent again, and files of a later version are left alone | `what_was_done_is_not_sent_again_and_a_later_version_is_left_alone` |
/// | a folder that is removed while in use loses nothing that is in memory | `a_folder_that_is_removed_while_in_use_leaves_events_in_memory_and_loses_none` |
/// | a clock that goes back makes no event too old | `a_clock_that_goes_back_makes_no_event_too_old` |
pub mod promises {}

/// Which settings matter, and when.
///
/// The defaults suit a program that sends up to some millions of small events a minute to a server that is
/// near. Change them for a reason:
///
/// | symptom | setting |
/// |---|---|
/// | `collect` returns [`Full`](crate::CollectError::Full) in bursts, and the server keeps up on average | a larger [`memory_budget`](crate::Builder::memory_budget), or `collect_timeout` and `collect_wait` to wait for room |
/// | `Full` all the time | the server or the network is slower than the events: more [`concurrency`](crate::Builder::concurrency) if responses take long, otherwise fewer events |
/// | events should arrive sooner | a shorter [`flush_interval`](crate::Builder::flush_interval); below some 20 ms batches become small, and each request costs as much as compressing hundreds of events |
/// | outages last longer than two minutes | a longer [`retry_for`](crate::Builder::retry_for), and the memory to match; or a spool |
/// | events must survive a kill | a spool that writes ahead |
/// | the network is expensive | a higher [`gzip_level`](crate::Builder::gzip_level): level 6 sends a third less for six times the work |
/// | many streams | nothing: streams that trickle share requests, and a stream without events gives its memory back |
///
/// In the hottest loops, [`stream`](crate::Intake::stream) returns a handle that looks up no name. Derive
/// `Serialize` for your event rather than building a `serde_json::Value`.
///
/// An estimate of memory: an event takes its length in JSON until it is compressed, then about a seventh of
/// it (nested page views), or a third (very small events). While the server is down, what waits is
/// compressed.
pub mod tuning {}

/// Starting and stopping in a program that runs for months.
///
/// # The end of the program
///
/// Events in memory are gone when the process ends, unless a spool that writes ahead has them on disk, too. Call [`stop`](crate::Collector::stop) before that, and
/// look at the report. Dropping the last handle of a `Collector` also drains it, for at most a second.
///
/// * **SIGTERM** (containers, systemd): the default action ends the process at once, and nothing runs.
///   Handle the signal, leave the main loop, then `stop_within` less than the grace period (10 s in
///   Docker, 30 s in Kubernetes):
///
///   ```no_run
///   # use std::time::Duration;
///   # fn wait_for_signal() {}
///   # fn example(collector: stride_collector::Collector) {
///   wait_for_signal(); // for example the crate `ctrlc` with its feature `termination`
///   let report = collector.stop_within(Duration::from_secs(8));
///   if report.lost() > 0 {
///       eprintln!("{report}");
///   }
///   # }
///   ```
///
/// * **`std::process::exit`** runs no destructors: `stop` first. The same holds for `panic = "abort"`.
/// * **A `static`** is never dropped. A collector in a `static` or a `OnceLock` is fine, if `main` calls
///   `stop` at its end: handles are cheap to clone, and any of them can stop it.
///
///   ```no_run
///   # use std::sync::OnceLock;
///   # use stride_collector::Collector;
///   static EVENTS: OnceLock<Collector> = OnceLock::new();
///   # fn example(target: stride_core::transport::Target) -> Result<(), stride_core::Error> {
///   let collector = Collector::start(target)?;
///   EVENTS.get_or_init(|| collector.clone());
///   // ... the program runs ...
///   println!("{}", collector.stop());
///   # Ok(())
///   # }
///   ```
///
/// * **`fork`** copies no threads: a collector that was started before the fork accepts events in the
///   child and never sends them. Start it after the fork.
/// * **A tokio runtime that ends** under an `AsyncCollector` loses what is pending, and reports it. Await
///   [`stop`](crate::Collector::stop) first.
///
/// # Keys
///
/// A key can be rotated while a collector runs, if the new client is a new collector: start one with the
/// new key, then stop the old one. If the old key is revoked before that, its events are kept and probed
/// for `retry_for`.
pub mod deployment {}

/// What a collector reports while it runs.
///
/// [`stats`](crate::Intake::stats) returns [`Stats`](crate::Stats): what became of the events, requests,
/// retries, bytes before and after compression, memory, the age of the oldest pending event, and how the
/// server is doing. It is cheap enough for every scrape of a metrics endpoint; the example
/// [`prometheus`](https://github.com/stride-rs/stride/blob/main/tests/suite/examples/prometheus.rs)
/// writes such a page.
///
/// An [`observer`](crate::Builder::observer) is told each [`Activity`](crate::Activity): sent, retried,
/// narrowed, lost, and every change of the server's state.
///
/// What happens in the background is told to `tracing`, target `stride::collector`, without events and
/// without the key:
///
/// | level | what | fields |
/// |---|---|---|
/// | `WARN` | "events were lost" | `stream`, `events`, `reason`, `delivery`, `status`, `server_message`, `error` with its sources |
/// | `WARN` | the server began to fail | `status`, `server_message`, `error` |
/// | `INFO` | "events are delivered again" | |
/// | `WARN` | "the spool's disk failed" | `error` |
/// | `WARN` | "events cannot be stored on disk; they are kept in memory" | |
/// | `INFO` | "events are stored on disk again" | |
/// | `WARN` | "events on disk are damaged, and lost" | `records`, `events`, `recovered` |
/// | `TRACE` | "a request ended" | `status`, `server_message`, `error` |
///
/// Alert on `lost()`, on `oldest` beyond what your readers expect, on `memory` that stays near the
/// budget, and with a spool on `spool.failing` and on `spool.bytes` that keeps growing. The requests themselves go
/// through the transport, so a [middleware](stride_core::transport#middleware) sees each of them.
pub mod observability {}

/// Events on disk: how they survive an outage, and the end of the process.
///
/// Without a spool, events are in memory only: they are gone when the process is killed, and they are lost when
/// the server is away for longer than [`retry_for`](crate::Builder::retry_for) or than memory holds them. A
/// [`Spool`](crate::spool::Spool) is a folder for them (feature `spool`):
///
/// ```no_run
/// use serde_json::json;
/// use stride_collector::Collector;
/// use stride_collector::spool::Spool;
///
/// # fn example(stride: stride_core::transport::Target) -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder()
///     .spool(Spool::write_ahead("/var/lib/myprogram/events"))
///     .start(stride)?;
/// collector.collect("orders", &json!({"id": 17}))?;
/// let report = collector.flush();
/// // Nothing that was accepted so far would be lost if the process were killed now.
/// assert_eq!(report.pending, report.spooled);
/// # Ok(())
/// # }
/// ```
///
/// # Which mode
///
/// | | [`overflow`](crate::spool::Spool::overflow) | [`write_ahead`](crate::spool::Spool::write_ahead) |
/// |---|---|---|
/// | what is written | what memory cannot hold, what was not delivered for `retry_for`, and what is left at the end of a `stop` | every batch, before it is sent |
/// | while the server keeps up | no file is read or written | each batch is written and synced |
/// | the server is away for hours | nothing is lost, up to `max_bytes` and `max_age` | the same |
/// | the process is killed | what is in memory is lost | at most the events of the last [`flush_interval`](crate::Builder::flush_interval), and of batches that are being written |
/// | the machine stops | the same | the same; with `sync(false)`, also what the system has not written yet |
/// | events are stamped with an `$id` | if you ask for it ([`stamp`](crate::Builder::stamp)) | always |
///
/// The next collector that starts with the same folder and the same base URL sends what was left, beside its own
/// events. What the dead process was sending may arrive twice; a Stride stores an event with an `$id` once. A
/// disk that says that data is synced when it is not breaks these promises.
///
/// # When an event is safe
///
/// An event is on disk when its batch was closed (after the `flush_interval`, when it is full, or by a `flush`),
/// compressed, written, and synced. [`Report::spooled`](crate::Report::spooled) counts the pending events that
/// are. All that was accepted is safe when `pending == spooled`.
///
/// * **`flush`** waits until each event that was accepted before it is delivered, lost, or has left memory for
///   the disk. With a spool that writes ahead, a `flush_within` with a short limit tells what is safe while the
///   server is down.
/// * **`stop`** delivers what it can until its limit. What is left then goes to disk instead of being lost, which
///   takes up to 5 s more if the disk is slow: `pending` is not 0 then, and `pending == spooled`. What could not
///   be written is lost as [`Stopped`](crate::LossReason::Stopped).
/// * **[`Report::recovered`](crate::Report::recovered)** counts the events of earlier processes that were found
///   so far: `accepted + recovered = delivered + lost + pending`. Events that are still to be read from disk are
///   in none of these.
///
/// # When the disk is full, or fails
///
/// * [`max_bytes`](crate::spool::Spool::max_bytes) (512 MiB) bounds the files. At the bound the oldest events are
///   lost as [`SpoolFull`](crate::LossReason::SpoolFull), or with
///   [`WhenFull::Refuse`](crate::spool::WhenFull::Refuse) events stay in memory until `collect` returns
///   [`Full`](crate::CollectError::Full). Events older than [`max_age`](crate::spool::Spool::max_age) (7 days) are
///   lost as [`Expired`](crate::LossReason::Expired). Both are handed to `on_lost`.
/// * When the disk takes nothing, events stay in memory and are sent from there, also by a spool that writes
///   ahead: they are then as safe as without a spool. `stats().spool.failing` is true, and the log says so. It is
///   tried again after 1 s, doubling to 30 s. What is on disk is still sent, which makes room. The same happens
///   when somebody removes the folder.
/// * After a failed sync nobody knows what is on disk. It is not tried again; the events are written to a new
///   file.
/// * What cannot be read is lost as [`Damaged`](crate::LossReason::Damaged) and counted in
///   `stats().spool.damaged`. The other events of the file are sent, and the file is kept with the ending
///   `.damaged`, for up to a quarter of `max_bytes`. The example `spool` looks into files:
///   `cargo run -p stride-collector --features spool --example spool -- check DIR`.
/// * A collector starts whatever is on disk. It does not start
///   ([`StartError::Spool`](crate::StartError::Spool)) when the folder cannot be made, read or locked.
///
/// # Sending what is on disk
///
/// The oldest events are sent first, beside new ones: up to three batches per sender are in memory, and the last
/// quarter of the memory budget is left to new events. While the server is down, one request probes it. Events
/// that go through a spool do not keep their order, so it cannot be combined with
/// [`ordered`](crate::Builder::ordered).
///
/// # Several processes, and forks
///
/// Any number of processes may use the same folder, and a process may run any number of collectors. Each holds a
/// folder inside of it, locked until it ends. A collector that starts takes over the folders that nobody holds:
/// what a killed process left is sent when the next one starts, so keep at least one that does. The folders
/// belong to a base URL: events never go to another server than the one that they were collected for. The key
/// may change.
///
/// The folder has to be on a local file system: locks and syncs of network file systems promise less. It is
/// readable for its owner only, and the key is nowhere in it. Start a collector after a fork, not before; a child
/// that was forked writes to no file of its parent.
///
/// # What it costs
///
/// In good times, overflow costs nothing. Writing ahead costs a write and a sync per batch on a thread of its
/// own, while other batches are compressed and sent; batches that wait for the disk together share a sync. The
/// rows `spool/*` of the
/// [benches](https://github.com/stride-rs/stride/blob/main/tests/bench/README.md) have the figures. To write
/// less often, make batches larger ([`batch_size`](crate::Builder::batch_size)) or the `flush_interval` longer;
/// the latter is also what a kill may lose. `sync(false)` leaves it to the system when data reaches the disk.
///
/// A spool takes a few MiB beside the memory budget. But glibc's allocator keeps much of what is freed when long
/// batches come and go. While gigabytes went to disk, the resident memory of a process grew to between 1.4 and
/// 2.3 times the budget (without a spool it grew to 1.7 times with the same events); with
/// `MALLOC_TRIM_THRESHOLD_=131072` in the environment it stayed below 1.2 times.
///
/// [`spool_format`] specifies the files.
#[cfg(feature = "spool")]
pub mod spool {}

/// What a spool leaves on disk: version 1 of the format.
///
/// All numbers are little-endian. Every checksum is the CRC-32 of IEEE 802.3, as in gzip.
///
/// # Folders
///
/// ```text
/// DIR/ENDPOINT-N/lock
/// DIR/ENDPOINT-N/NUMBER.segment
/// ```
///
/// * ENDPOINT is the FNV-1a hash (64 bits) of the base URL, in 16 lower-case hexadecimal digits. N counts the
///   collectors of that endpoint from 0, in decimal.
/// * Whoever uses the folder has `lock` locked (`flock`, or `LockFileEx` on Windows). Nothing in a folder that
///   another process has locked may be changed.
/// * NUMBER is that of the segment, in 16 lower-case hexadecimal digits. The oldest has the lowest.
/// * Files and folders with other names are left alone. Files are readable for their owner only.
/// * A key is nowhere in them.
///
/// # A segment
///
/// | offset | bytes | header |
/// |---|---|---|
/// | 0 | 8 | `strdspl\n` |
/// | 8 | 4 | checksum of bytes 12 to 63 |
/// | 12 | 4 | the version of the format: 1 |
/// | 16 | 8 | the number in the file's name |
/// | 24 | 8 | the salt: random, another for each file |
/// | 32 | 8 | ENDPOINT |
/// | 40 | 8 | the FNV-1a hash of the machine's boot id; 0 if it is unknown |
/// | 48 | 16 | zeros |
///
/// Other versions have the same length and checksum. When the checksum is wrong, the file is a damaged segment if
/// it begins with `strdspl\n` or holds nothing but zeros, and something else otherwise. Records follow, each at a
/// multiple of 8.
///
/// # A record
///
/// | offset | bytes | record |
/// |---|---|---|
/// | 0 | 8 | the state |
/// | 8 | 4 | the marker: checksum of the salt and `record` |
/// | 12 | 4 | checksum of the salt and bytes 16 to 55 |
/// | 16 | 8 | the sequence: each record of a segment has one more than the record before |
/// | 24 | 8 | when the batch was sealed, in ms since 1970 |
/// | 32 | 4 | how many events it has |
/// | 36 | 4 | the length of its JSON before compression |
/// | 40 | 4 | P, the length of the payload; at most 2 GiB and 1 MiB |
/// | 44 | 4 | S, the length of the stream's name; at most 64 KiB |
/// | 48 | 4 | checksum of the salt, the name and the payload |
/// | 52 | 4 | zeros |
/// | 56 | S | the stream's name, in UTF-8 |
/// | 56 + S | P | the payload: a JSON array of events, compressed with gzip |
/// | | 0 to 7 | zeros, to a multiple of 8 |
///
/// The salt goes into a checksum as its 8 bytes in the header.
///
/// # States
///
/// | bytes | what it means |
/// |---|---|
/// | `written:` | not sent by the process that wrote it. After a restart of the machine it may have been: the next state is not synced |
/// | `MAYBSENT` | the server may have it |
/// | `[[DONE]]` | delivered, or reported as lost |
/// | anything else | the server may have it |
///
/// A state is overwritten in place. No checksum covers it, and it never crosses the end of a sector.
///
/// # Reading
///
/// A record is read at the end of the header, then where the record before ends:
///
/// 1. If fewer than 56 bytes are left, it is the end.
/// 2. If the marker, the header's checksum and the bounds are right: when the record crosses the end of the
///    file, it is the end; when its other checksum is right, it is whole; otherwise it is damaged, and reading
///    goes on behind it.
/// 3. Otherwise the next header that is right is looked for, at multiples of 8. Reading goes on there, and what
///    is before is damaged. If there is none, it is the end; what is left is damaged, unless nothing but zeros
///    follows its first 56 bytes.
///
/// What the end cuts off was never written completely, so it was never reported as safe. What is damaged is lost,
/// and reported. It is at least as many records as there are places that look like headers; the sequence of the
/// next record tells how many exactly.
#[cfg(feature = "spool")]
pub mod spool_format {}
