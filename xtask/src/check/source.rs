//! Reads Rust source just well enough to tell code from comments and strings.

/// The source with every comment, string and character literal replaced by spaces; line breaks stay.
pub(super) fn code_only(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < characters.len() {
        let end = match literal_end(&characters, at) {
            Some(end) => end,
            None => {
                // A whole identifier at a time, so that its last letter is not taken for the r of r"...".
                let length = characters[at..].iter().take_while(|c| is_word(**c)).count().max(1);
                code.extend(&characters[at..at + length]);
                at += length;
                continue;
            }
        };
        code.extend(characters[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        at = end;
    }
    code
}

/// Line numbers, from 1, on which the word stands by itself.
pub(super) fn lines_with_word<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let words = |line: &'a str| line.split(|c| !is_word(c));
    text.lines()
        .enumerate()
        .filter(move |(_, line)| words(line).any(|w| w == word))
        .map(|(index, _)| index + 1)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where the comment or literal that begins at `at` ends; `None` when none begins there.
fn literal_end(characters: &[char], at: usize) -> Option<usize> {
    let rest = &characters[at..];
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => quoted(rest, '"'),
        ['b' | 'c', '"', ..] => 1 + quoted(&rest[1..], '"'),
        ['b', '\'', ..] => 1 + quoted(&rest[1..], '\''),
        ['r', '"' | '#', ..] => raw(rest, 1)?,
        ['b' | 'c', 'r', '"' | '#', ..] => raw(rest, 2)?,
        // A character; anything else behind a single quote is a lifetime.
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => quoted(rest, '\''),
        _ => return None,
    };
    Some(at + length)
}

/// Block comments nest.
fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// `r"..."` or `r##"..."##` whose prefix has `prefix` letters; `None` for a raw identifier such as `r#type`.
fn raw(rest: &[char], prefix: usize) -> Option<usize> {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return None;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = &rest[open + 1..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| open + 1 + end + close.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_not() {
        let cases = [
            ("unsafe { f() } // unsafe", true),
            ("// unsafe", false),
            ("/* a /* unsafe */ unsafe */ safe", false),
            ("/* a */ unsafe", true),
            (r#"let s = "unsafe \" unsafe";"#, false),
            (r##"let s = r#"a " unsafe"#;"##, false),
            (r##"let s = br#"x"#; unsafe {}"##, true),
            ("let r#type = 1; unsafe {}", true),
            ("let c = '\"'; unsafe { g('\\'') }", true),
            ("fn f<'a>(x: &'a str) { \"unsafe\" }", false),
            ("let c = b'\\''; // unsafe", false),
            ("#![forbid(unsafe_code)]", false),
            ("for\"unsafe\"", false),
            ("\"unterminated unsafe", false),
        ];
        for (source, expected) in cases {
            let code = code_only(source);
            let found = lines_with_word(&code, "unsafe").next().is_some();
            assert_eq!(found, expected, "{source} -> {code}");
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        let code = code_only("\"a\nb\"\n/*\n*/ unsafe\n");
        assert_eq!(lines_with_word(&code, "unsafe").collect::<Vec<_>>(), [4]);
    }
}
