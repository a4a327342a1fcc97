//! Text out of a stream of tokens: whole characters only, and nothing that might turn out to be a stop string.

/// Turns the pieces of tokens into text as they arrive.
///
/// Two things are held back until more is known: the bytes of an unfinished character, and text that a stop string
/// might begin with. Bytes that can no longer become a character come out as U+FFFD.
///
/// ```
/// use kiln::tokenizer::StreamDecoder;
///
/// let mut stream = StreamDecoder::new(["\nUser:"]);
/// assert_eq!(stream.push(b"caf\xc3"), "caf");
/// assert_eq!(stream.push(b"\xa9\nUs"), "é"); // the line break may begin the stop string
/// assert_eq!(stream.push(b"ing"), "\nUsing"); // it did not
/// assert_eq!(stream.push(b"!\nUser: hi"), "!");
/// assert_eq!(stream.stopped(), Some("\nUser:"));
/// assert_eq!(stream.push(b"ignored"), "");
/// ```
#[derive(Debug, Clone, Default)]
pub struct StreamDecoder {
    stops: Vec<String>,
    /// Bytes of a character that is not complete.
    unfinished: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    stopped: Option<usize>,
}

impl StreamDecoder {
    /// A decoder that ends the text before the first of these strings. Empty ones are ignored.
    pub fn new(stops: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let stops = stops.into_iter().map(Into::into).filter(|stop: &String| !stop.is_empty()).collect();
        StreamDecoder { stops, ..StreamDecoder::default() }
    }

    /// Takes the bytes of the next token and returns the text that is certain now. After a stop string: nothing.
    pub fn push(&mut self, piece: &[u8]) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        let searched = self.held.len();
        self.take_characters(piece);
        if let Some((at, stop)) = self.find_stop(searched) {
            self.stopped = Some(stop);
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let certain = self.held.len() - self.possible_stop_bytes();
        let rest = self.held.split_off(certain);
        std::mem::replace(&mut self.held, rest)
    }

    /// Ends the stream: returns what was held back, an unfinished character as U+FFFD.
    pub fn finish(&mut self) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        if !self.unfinished.is_empty() {
            self.unfinished.clear();
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        std::mem::take(&mut self.held)
    }

    /// The stop string that has ended the text.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.map(|stop| &self.stops[stop][..])
    }

    /// Moves every complete character to `held` and keeps the beginning of an incomplete one.
    fn take_characters(&mut self, piece: &[u8]) {
        self.unfinished.extend_from_slice(piece);
        let mut complete = 0;
        for chunk in self.unfinished.utf8_chunks() {
            self.held.push_str(chunk.valid());
            complete += chunk.valid().len();
            let rest = chunk.invalid();
            let at_end = complete + rest.len() == self.unfinished.len();
            if rest.is_empty() || (at_end && may_be_completed(rest)) {
                break;
            }
            self.held.push(char::REPLACEMENT_CHARACTER);
            complete += rest.len();
        }
        self.unfinished.drain(..complete);
    }

    /// The earliest stop string in `held`; of several at one place the longest. Only those that end in new text count.
    fn find_stop(&self, searched: usize) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let mut from = searched.saturating_sub(stop.len() - 1);
            while !self.held.is_char_boundary(from) {
                from -= 1;
            }
            Some((from + self.held[from..].find(stop)?, index))
        });
        found.min_by_key(|&(at, index)| (at, std::cmp::Reverse(self.stops[index].len())))
    }

    /// The length of the longest end of `held` that a stop string begins with.
    fn possible_stop_bytes(&self) -> usize {
        let starts_stop = |stop: &String| {
            let longest = self.held.len().min(stop.len() - 1);
            (1..=longest)
                .rev()
                .find(|&bytes| stop.as_bytes().starts_with(&self.held.as_bytes()[self.held.len() - bytes..]))
        };
        self.stops.iter().filter_map(starts_stop).max().unwrap_or(0)
    }
}

/// Whether bytes at the end of a stream, no character by themselves, may become one.
fn may_be_completed(bytes: &[u8]) -> bool {
    let length = match bytes.first() {
        Some(0xC2..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF4) => 4,
        _ => return false,
    };
    // `utf8_chunks` ends an invalid chunk before the first byte that does not fit, so what is here fits so far.
    bytes.len() < length
}

#[cfg(test)]
mod tests {
    use super::StreamDecoder;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, Option<String>) {
        let mut stream = StreamDecoder::new(stops.iter().copied());
        let mut out: Vec<String> = pieces.iter().map(|piece| stream.push(piece)).collect();
        out.push(stream.finish());
        (out, stream.stopped().map(str::to_owned))
    }

    #[test]
    fn characters_come_out_whole() {
        let llama = "🦙".as_bytes();
        let (out, _) = run(&[], &[&llama[..1], &llama[1..3], &llama[3..], b"!"]);
        assert_eq!(out, ["", "", "🦙", "!", ""]);
    }

    #[test]
    fn broken_bytes_become_replacement_characters_as_soon_as_that_is_certain() {
        assert_eq!(run(&[], &[b"\xff", b"a\xe4", b"b", b"\xe4\xbd"]).0, ["\u{fffd}", "a", "\u{fffd}b", "", "\u{fffd}"]);
        assert_eq!(run(&[], &[b"\xed\xa0\x80"]).0[0], "\u{fffd}\u{fffd}\u{fffd}");
    }

    #[test]
    fn the_earliest_and_longest_stop_string_wins() {
        let (out, stopped) = run(&["end", "the end", "ending"], &[b"so the e", b"nding"]);
        assert_eq!((out.concat(), stopped.as_deref()), ("so ".into(), Some("the end")));
        let (out, stopped) = run(&["en", "end"], &[b"bend"]);
        assert_eq!((out.concat(), stopped.as_deref()), ("b".into(), Some("end")));
    }

    #[test]
    fn text_that_only_looked_like_a_stop_string_is_not_lost() {
        let (out, stopped) = run(&["aab"], &[b"a", b"a", b"a", b"c", b"aa"]);
        assert_eq!(
            (out, stopped),
            (vec!["".into(), "".into(), "a".into(), "aac".into(), "".into(), "aa".into()], None)
        );
        let (out, stopped) = run(&["é!"], &["é".as_bytes(), b"?", "aé".as_bytes()]);
        assert_eq!((out.concat(), stopped), ("é?aé".into(), None));
    }

    #[test]
    fn any_cut_of_a_text_gives_the_same_text() {
        let text = "Grüße, 世界! 🦙🏽\n\nUser: STOP here".as_bytes();
        for cut in 1..text.len() {
            let (out, stopped) = run(&["STOP", "\n\nUser:X"], &text.chunks(cut).collect::<Vec<_>>());
            assert_eq!(out.concat(), "Grüße, 世界! 🦙🏽\n\nUser: ");
            assert_eq!(stopped.as_deref(), Some("STOP"));
        }
    }
}
