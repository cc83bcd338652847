//! How much memory the process keeps for itself.

/// Has the C library's allocator serve all threads from one arena, instead of giving nearly each its own.
///
/// An arena keeps what it was once given: a burst of calls on hundreds of blocking threads, or a few long lists, would
/// stay resident many times over. To be called before threads are started; only glibc has arenas.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    #[expect(
        unsafe_code,
        reason = "the standard library can not tune its allocator"
    )]
    // SAFETY: the call takes numbers only. A refusal leaves the allocator as it was, which is right too.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
