//! What a reader must know of the machine that figures come from.

use std::fs;
use std::process::Command;
use std::thread;

/// Date, kernel, cores, processor and memory, in one sentence.
pub fn describe() -> String {
    let date = said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name");
    let kilobytes = field("/proc/meminfo", "MemTotal");
    let kilobytes = kilobytes.split_whitespace().next().unwrap_or_default();
    let memory = kilobytes.parse::<u64>().unwrap_or_default() >> 20;
    format!(
        "{date}, Linux {}, {cores} cores ({processor}), {memory} GiB",
        kernel.trim()
    )
}

/// Versions of what stands beside wsha, as they say themselves.
pub fn peers() -> String {
    // Both say it on standard error.
    let keepalived = said(Command::new("keepalived").arg("--version"));
    let nginx = said(Command::new("nginx").arg("-v"));
    format!("{keepalived}; {nginx}")
}

/// The first line that a command says; nothing where it cannot be run.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return String::new();
    };
    let both = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&both);
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// The value of a field that stands as `name: value` on a line of a file.
fn field(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(found, _)| found.trim() == name);
    found.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_is_described() {
        let text = super::describe();
        assert!(
            text.contains(" UTC, Linux ") && !text.contains(" 0 cores"),
            "{text}"
        );
    }
}
