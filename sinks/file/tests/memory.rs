//! What many open files really allocate, against the memory that they may have.
//! A test binary of its own: its allocator counts.
#![expect(unsafe_code, reason = "an allocator that counts")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use tidelock_connector::{
    Barrier, Batch, Coverage, Incarnation, Sink, SinkContext, Stream, TopicPartition, arrow,
};
use tidelock_file::ParquetSink;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the writer may hold.
const MEMORY: usize = 32 << 20;
/// What the column that is being encoded holds beside its rows, however many
/// files are open, and the batch that comes in.
const BESIDE: usize = 12 << 20;
const ROWS: i64 = 4_000;

/// Rows of thirteen columns and about 200 bytes, of `keys` folders in turn.
fn rows(from: i64, keys: i64) -> RecordBatch {
    let numbers = || (from..from + ROWS).map(|i| i.wrapping_mul(0x5DEE_CE66_D1CE_4E5B));
    let key = StringArray::from_iter_values((from..from + ROWS).map(|i| format!("k{}", i % keys)));
    let mut columns = vec![("key".to_owned(), Arc::new(key) as ArrayRef)];
    for column in 0_u32..12 {
        let numbers = numbers().map(|n| n.rotate_left(column));
        let array: ArrayRef = match column % 3 {
            0 => Arc::new(Int64Array::from_iter_values(numbers)),
            1 => Arc::new(Float64Array::from_iter_values(numbers.map(|n| n as f64))),
            _ => Arc::new(StringArray::from_iter_values(numbers.map(|n| format!("{n:024x}")))),
        };
        columns.push((format!("c{column}"), array));
    }
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Writes 400,000 rows into `keys` folders: the most that was allocated
/// meanwhile, and how many files came of it.
async fn write(keys: i64) -> (usize, usize) {
    let folder = tempfile::tempdir().unwrap();
    let sink = ParquetSink::builder(folder.path().to_str().unwrap())
        .partition_by(["key"])
        .build()
        .unwrap();
    let context = SinkContext::new("pipe", "lake", Incarnation::new(), MEMORY);
    let mut writer = sink.open(context).await.unwrap();
    let stream = Stream::new("orders", rows(0, keys).schema());
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    for step in 0..100 {
        let records = rows(step * ROWS, keys);
        let batch = Batch::new(Arc::clone(&stream), records, Coverage::new());
        writer.write(&batch).await.unwrap();
    }
    let partition = TopicPartition::new("orders", 0);
    let barrier = Barrier {
        checkpoint: 1,
        coverage: Coverage::of(partition.clone(), 0, 100 * ROWS),
        epochs: BTreeMap::from([(partition, 1)]),
        last: true,
    };
    let files = writer.prepare(&barrier).await.unwrap();
    assert_eq!(files.iter().map(|file| file.rows).sum::<u64>(), 100 * ROWS.cast_unsigned());
    (PEAK.load(Ordering::Relaxed) - before, files.len())
}

/// Twenty open files of thirteen columns once held 1.3 MB each for every column,
/// which nobody had counted.
#[tokio::test]
async fn many_open_files_stay_within_the_memory() {
    for (keys, most) in [(1, 1), (20, 40), (300, 2_000)] {
        let (peak, files) = write(keys).await;
        println!("{keys} folders: {} MiB, {files} files", peak >> 20);
        assert!(peak <= MEMORY + BESIDE, "{keys} folders: {} MiB", peak >> 20);
        assert!(files <= most, "{keys} folders: {files} files");
    }
}
