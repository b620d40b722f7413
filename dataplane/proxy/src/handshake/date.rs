//! When an answer is made (RFC 9110 section 6.6.1).

use std::{
    cell::RefCell,
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

thread_local! {
    /// The second that was written last, and how.
    static LAST: RefCell<(u64, Rc<str>)> = RefCell::new((u64::MAX, Rc::from("")));
}

/// The current time as a field has it (RFC 9110 section 5.6.7); it is written once in a second.
pub(crate) fn now() -> Rc<str> {
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            *last = second;
            *text = httpdate::fmt_http_date(now).into();
        }
        Rc::clone(text)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_now() {
        let before = SystemTime::now() - Duration::from_secs(1);
        let now = httpdate::parse_http_date(&now()).unwrap();
        assert!(before <= now && now <= SystemTime::now());
    }
}
