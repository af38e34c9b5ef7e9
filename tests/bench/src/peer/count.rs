//! How many events a body holds, in each client's format: the sink counts, not the client.

use serde::Deserialize;
use serde::de::IgnoredAny;
use stride_core::gzip::gunzip;

/// Ours: a gzipped array.
pub(super) fn stride(body: &[u8], _: bool) -> u64 {
    let text = gunzip(body).unwrap_or_default();
    let events: Vec<IgnoredAny> = serde_json::from_slice(&text).unwrap_or_default();
    events.len() as u64
}

/// posthog: an object with the array `batch`, plain.
pub(super) fn posthog(body: &[u8], _: bool) -> u64 {
    #[derive(Deserialize, Default)]
    struct Batch {
        batch: Vec<IgnoredAny>,
    }
    serde_json::from_slice::<Batch>(body).unwrap_or_default().batch.len() as u64
}

/// OTLP: protobuf, plain; a request's second-level field 2 in its fields 1, and in those field 2, is
/// a log record.
pub(super) fn otlp(body: &[u8], _: bool) -> u64 {
    // ExportLogsServiceRequest.resource_logs = 1, ResourceLogs.scope_logs = 2,
    // ScopeLogs.log_records = 2.
    at(body, &[1, 2, 2]).unwrap_or_default()
}

/// How many messages there are at the end of a path of field numbers.
fn at(mut message: &[u8], path: &[u64]) -> Option<u64> {
    let Some((field, path)) = path.split_first() else { return Some(1) };
    let mut count = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match key & 7 {
            0 => {
                varint(&mut message)?;
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = message.split_at_checked(length)?;
        if key >> 3 == *field && key & 7 == 2 {
            count += at(value, path)?;
        }
        message = rest;
    }
    Some(count)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use stride_core::gzip::{Gzip, GzipLevel};

    use super::*;

    #[test]
    fn json_is_counted() {
        let body = Gzip::new(GzipLevel::FASTEST).compress([&br#"[{"a":1},{"b":[2]}]"#[..]]);
        assert_eq!(stride(&body, true), 2);
        assert_eq!(posthog(br#"{"api_key":"k","batch":[{},{},{}]}"#, false), 3);
    }

    #[test]
    fn protobuf_is_counted() {
        // Two scopes in one resource, of two records and of one; other fields in between.
        let scope = |records: usize| {
            let mut scope = vec![0x0a, 1, 0];
            scope.extend([0x12, 2, 0x08, 5].repeat(records));
            scope
        };
        let mut resource = Vec::new();
        for scope in [scope(2), scope(1)] {
            resource.extend([0x12, scope.len() as u8]);
            resource.extend(scope);
        }
        let mut request = vec![0x18, 0x80, 0x01, 0x0a, resource.len() as u8];
        request.extend(resource);
        assert_eq!(otlp(&request, false), 3);
        assert_eq!(otlp(&request[..request.len() - 1], false), 0);
    }
}
