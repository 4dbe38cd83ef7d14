//! The command `tidelock`.
#![cfg_attr(not(target_env = "msvc"), expect(unsafe_code, reason = "names a symbol for jemalloc"))]

/// For librdkafka and zstd, too: Arrow's buffers come and go by the megabyte,
/// and the system's allocator keeps what they leave behind.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One arena, and what is unused for a second goes back to the system: 208 MiB
/// at the peak of ten million messages instead of 295, for the same CPU.
/// `MALLOC_CONF` in the environment overrules it.
#[cfg(not(target_env = "msvc"))]
// SAFETY: nobody else defines the symbol, which jemalloc reads as a C string.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; 47] = b"narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> std::process::ExitCode {
    tidelock::cli::main()
}
