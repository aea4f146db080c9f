//! Tests of the record layout: what is read comes out of records.

use super::*;
use crate::protocol::Padding;

/// Of whatever length: the bytes of one read come out of its records, which are as long as
/// the padding says.
#[test]
fn what_is_read_comes_out_of_its_records() {
    for multiple in [None, Some(2), Some(1000), Some(Padding::MAX)] {
        let layout = RecordLayout::new(multiple.map(|bytes| Padding::new(bytes).unwrap()));
        let (mut initiator, mut responder) = sessions();
        let mut open = initiator.sealer.seal_open(Extensions::default()).unwrap();
        assert_eq!(responder.opener.open(&mut open), Ok(OPEN));
        for size in [Size::Small, Size::Large] {
            let (record, all) = (layout.capacity(Size::Small), layout.capacity(size));
            for count in [1, 2, record - 1, record, all.min(record + 1), all - 1, all] {
                let stream: Vec<u8> = (0..=255).cycle().take(count).collect();
                let read = layout.read(Buffer::lend(size), 0, |parts| {
                    let room: usize = parts.iter().map(|part| part.len()).sum();
                    assert_eq!(room, all, "{multiple:?} {size:?}");
                    let mut rest = &stream[..];
                    for part in parts.iter_mut() {
                        _ = rest.read(part).unwrap();
                    }
                    Ok(Some(count))
                });
                let filled = read.unwrap().unwrap();
                assert_eq!((filled.count(), filled.size()), (count, size));
                let sealed = filled.seal(&[], &mut initiator.sealer).unwrap();
                let mut records = sealed.part(0..sealed.unwritten()).to_vec();
                let opened = open_padded(&mut responder.opener, &mut records, multiple);
                assert_eq!(opened, stream, "{multiple:?} {size:?} {count}");
            }
        }
    }
}

/// Opens records of the stream. Without its overhead, each is a multiple of so many bytes.
fn open_padded(opener: &mut Opener, mut records: &mut [u8], multiple: Option<u16>) -> Vec<u8> {
    let mut stream = Vec::new();
    while !records.is_empty() {
        let length = opener.record_length(records).unwrap().unwrap();
        // The kind is padded, too.
        let plaintext = length - OVERHEAD + 1;
        assert!(plaintext.is_multiple_of(multiple.unwrap_or(1).into()), "{length}");
        let (record, rest) = records.split_at_mut(length);
        let Ok(Record::Data(range)) = opener.open(record) else { panic!("no record of it") };
        stream.extend_from_slice(&record[range]);
        records = rest;
    }
    stream
}

/// Bulk goes in records of 16 KiB, sixteen in one read.
#[test]
fn a_large_buffer_has_sixteen_records_of_16_kib() {
    let layout = RecordLayout::new(None);
    let capacity = [Size::Small, Size::Large].map(|size| layout.capacity(size) / 1024);
    assert_eq!(capacity, [16, 256]);
}
