//! The program itself in memory: its instructions and constants.

use std::{fs, io};

/// Unmaps the pages of instructions and constants that were used so far; those that are used again come back
/// from the page cache. What only the start of a process used, and what the kernel mapped around it, would else be
/// locked with the rest.
///
/// # Errors
/// If the kernel does not tell what is mapped, or does not unmap it.
pub fn forget() -> io::Result<()> {
    for (start, length) in unwritten(&fs::read_to_string("/proc/self/maps")?) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: the range is one mapping of a file, to which nobody has written, so its content is the file's
        // whenever it is mapped again: also under threads that run in it.
        if unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Start and length of the mappings of files to which nobody has written (proc(5)): those with instructions,
/// and those from the start of a file. What the loader has written to before it took the right away lies
/// behind the instructions.
fn unwritten(maps: &str) -> Vec<(usize, usize)> {
    let one = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (rights, offset) = (fields.next()?, fields.next()?);
        let is_first = u64::from_str_radix(offset, 16) == Ok(0);
        let is_unwritten = rights == "r-xp" || (rights == "r--p" && is_first);
        let path = fields.nth(2)?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (is_unwritten && path.starts_with('/')).then(|| (start, end.saturating_sub(start)))
    };
    maps.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_and_constants_are_found_and_nothing_else() {
        let maps = "\
            5581c0000000-5581c0100000 r--p 00000000 fe:00 1 /usr/bin/wsha-dataplane\n\
            5581c0100000-5581c0a00000 r-xp 00100000 fe:00 1 /usr/bin/wsha-dataplane\n\
            5581c0a00000-5581c0a80000 r--p 00a00000 fe:00 1 /usr/bin/wsha-dataplane\n\
            5581c0a80000-5581c0b00000 rw-p 00a80000 fe:00 1 /usr/bin/wsha-dataplane\n\
            5581c1000000-5581c1100000 rw-p 00000000 00:00 0 [heap]\n\
            7f0000000000-7f0000001000 r-xp 00000000 00:00 0\n\
            7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0 [vdso]\n";
        let found = [(0x5581_c000_0000, 0x10_0000), (0x5581_c010_0000, 0x90_0000)];
        assert_eq!(unwritten(maps), found);
    }

    #[test]
    fn a_program_goes_on_without_what_it_has_used() {
        forget().unwrap();
        assert!(!unwritten(&fs::read_to_string("/proc/self/maps").unwrap()).is_empty());
    }
}
