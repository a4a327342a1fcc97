//! The time, and how Python's `strftime` writes it.

use crate::{Error, Result};
use std::time::{SystemTime, UNIX_EPOCH};

/// A day and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    year: i64,
    month: u32, // 1 to 12
    day: u32,   // 1 to 31
    hour: u32,
    minute: u32,
    second: u32,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Now {
    /// The time by the system's clock, in UTC.
    pub fn utc() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self::of_seconds(seconds as i64)
    }

    /// So many seconds after the beginning of 1970.
    fn of_seconds(seconds: i64) -> Self {
        let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400) as u32);
        // Years that begin in March, in eras of 400 years: leap days come last then.
        let day = days + 719_468;
        let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = (from_march + 2) % 12 + 1;
        Now {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as u32,
            day: (of_year - (153 * from_march + 2) / 5 + 1) as u32,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
        }
    }

    /// From a text such as `2026-01-15T12:34:56`.
    ///
    /// # Errors
    /// [`Error::Template`] if it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::Template {
            line: None,
            reason: format!("found the time `{text}`, expected one such as 2026-01-15T12:34:56"),
        };
        let numbers: Vec<u32> =
            text.split(['-', 'T', ' ', ':']).map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let [year, month @ 1..=12, day @ 1..=31, hour @ 0..=23, minute @ 0..=59, second @ 0..=60] = numbers[..] else {
            return Err(wrong());
        };
        Ok(Now { year: year.into(), month, day, hour, minute, second })
    }

    /// As `strftime` writes it in the language that it speaks by itself.
    pub fn format(&self, format: &str) -> String {
        let Now { year, month, day, hour, minute, second } = *self;
        let month_name = MONTHS[(month as usize).clamp(1, 12) - 1];
        let day_name = DAYS[self.weekday()];
        let half_day = if hour % 12 == 0 { 12 } else { hour % 12 };
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let mut directive = letters.next();
            let is_bare = directive == Some('-');
            if is_bare {
                directive = letters.next();
            }
            let two = |number: u32| if is_bare { number.to_string() } else { format!("{number:02}") };
            text += &match directive {
                Some('Y') => year.to_string(),
                Some('y') => two(year.rem_euclid(100) as u32),
                Some('m') => two(month),
                Some('d') => two(day),
                Some('e') => format!("{day:2}"),
                Some('H') => two(hour),
                Some('I') => two(half_day),
                Some('M') => two(minute),
                Some('S') => two(second),
                Some('p') => if hour < 12 { "AM" } else { "PM" }.into(),
                Some('B') => month_name.into(),
                Some('b' | 'h') => month_name[..3].into(),
                Some('A') => day_name.into(),
                Some('a') => day_name[..3].into(),
                Some('j') => {
                    if is_bare {
                        self.day_of_year().to_string()
                    } else {
                        format!("{:03}", self.day_of_year())
                    }
                }
                Some('w') => self.weekday().to_string(),
                Some('F') => format!("{year}-{month:02}-{day:02}"),
                Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
                Some('D') => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
                Some('c') => {
                    format!("{} {} {day:2} {hour:02}:{minute:02}:{second:02} {year}", &day_name[..3], &month_name[..3])
                }
                Some('x') => format!("{month:02}/{day:02}/{:02}", year.rem_euclid(100)),
                Some('X') => format!("{hour:02}:{minute:02}:{second:02}"),
                Some('Z') => "UTC".into(),
                Some('z') => "+0000".into(),
                Some('f') => "000000".into(),
                Some('n') => "\n".into(),
                Some('t') => "\t".into(),
                Some('%') => "%".into(),
                Some(other) => format!("%{other}"),
                None => "%".into(),
            };
        }
        text
    }

    /// Days since the first of January, and one.
    fn day_of_year(&self) -> u32 {
        const BEFORE: [u32; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        BEFORE[(self.month as usize).clamp(1, 12) - 1] + self.day + u32::from(leap && self.month > 2)
    }

    /// Days since Sunday.
    fn weekday(&self) -> usize {
        let before = self.year - 1;
        let days = before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
        (days + i64::from(self.day_of_year())).rem_euclid(7) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        let text = |seconds| Now::of_seconds(seconds).format("%F %T %a %j");
        assert_eq!(text(0), "1970-01-01 00:00:00 Thu 001");
        assert_eq!(text(951_782_400), "2000-02-29 00:00:00 Tue 060");
        assert_eq!(text(1_768_480_496), "2026-01-15 12:34:56 Thu 015");
        assert_eq!(text(4_107_542_399), "2100-02-28 23:59:59 Sun 059");
        assert_eq!(text(-1), "1969-12-31 23:59:59 Wed 365");
    }

    #[test]
    fn formats_are_pythons() {
        let now = Now::parse("2026-03-05T15:04:09").unwrap();
        assert_eq!(
            now.format("%d %b %Y, %-d/%-m, %I:%M %p, %B %e, %A, 100%%, %q %"),
            "05 Mar 2026, 5/3, 03:04 PM, March  5, Thursday, 100%, %q %"
        );
        for wrong in ["", "today", "2026-13-01T00:00:00", "2026-01-01", "2026-01-01T24:00:00", "2026-01-15T12:34:56Z"] {
            assert!(Now::parse(wrong).unwrap_err().to_string().contains("2026-01-15T12:34:56"), "{wrong}");
        }
    }
}
