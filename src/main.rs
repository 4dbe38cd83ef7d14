//! The command `tidelock`.

/// Arrow's buffers come and go by the megabyte: the system's allocator keeps
/// what they leave behind.
#[cfg(not(target_env = "msvc"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    tidelock::cli::main()
}
