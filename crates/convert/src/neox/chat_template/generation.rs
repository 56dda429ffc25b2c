//! The blocks `{% generation %}` of a chat template.
//!
//! transformers takes them as marks of what the model writes; of the text they are in they change nothing. What is set within
//! is not known behind them. Both is so of `{% with %}`, which stands in their place before the template is read. The words
//! are left as they are in comments, in raw text and in strings.

const NAMES: [(&str, &str); 2] = [("generation", "with"), ("endgeneration", "endwith")];

/// The template with `{% with %}` for `{% generation %}`, in the same lines.
pub(super) fn as_with(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = split_at_tag(rest) {
        written.push_str(before);
        let end = match tag.as_bytes()[1] {
            b'#' => end_of(tag, "#}"),
            b'{' => end_of_code(tag, b"}}"),
            _ => {
                let (begin, name) = name_of(tag);
                let behind = &tag[begin + name.len()..];
                match NAMES.into_iter().find(|(mark, _)| *mark == name) {
                    Some((_, with)) if ends(behind) => {
                        written.push_str(&tag[..begin]);
                        written.push_str(with);
                        rest = behind;
                        continue;
                    }
                    _ if name == "raw" && ends(behind) => end_of_raw(tag),
                    _ => end_of_code(tag, b"%}"),
                }
            }
        };
        written.push_str(&tag[..end]);
        rest = &tag[end..];
    }
    written + rest
}

/// What is before the next tag, and from there on.
fn split_at_tag(source: &str) -> Option<(&str, &str)> {
    let is_tag = |pair: &[u8]| matches!(pair, b"{{" | b"{%" | b"{#");
    source.as_bytes().windows(2).position(is_tag).map(|at| source.split_at(at))
}

/// The name of a tag, and where it begins.
fn name_of(tag: &str) -> (usize, &str) {
    let behind_mark = tag[2..].strip_prefix(['-', '+']).unwrap_or(&tag[2..]);
    let name = behind_mark.trim_start();
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    (tag.len() - name.len(), &name[..end])
}

/// Whether a tag has nothing behind its name.
fn ends(behind_name: &str) -> bool {
    let rest = behind_name.trim_start();
    rest.strip_prefix(['-', '+']).unwrap_or(rest).starts_with("%}")
}

fn end_of(tag: &str, mark: &str) -> usize {
    tag.find(mark).map_or(tag.len(), |at| at + mark.len())
}

/// The end of `{% raw %}...`: where its `{% endraw %}` begins.
fn end_of_raw(tag: &str) -> usize {
    let mut tags = tag.match_indices("{%").map(|(at, _)| at);
    tags.find(|&at| name_of(&tag[at..]).1 == "endraw").unwrap_or(tag.len())
}

/// The end of a tag that holds an expression, in which strings and dicts may be.
fn end_of_code(tag: &str, close: &[u8; 2]) -> usize {
    let bytes = tag.as_bytes();
    let (mut at, mut quote, mut open) = (2, None, 0_usize);
    while at < bytes.len() {
        let byte = bytes[at];
        match quote {
            // What is behind it ends no string.
            Some(_) if byte == b'\\' => at += 1,
            Some(mark) if byte == mark => quote = None,
            Some(_) => {}
            None if open == 0 && bytes[at..].starts_with(close) => return at + close.len(),
            None => match byte {
                b'\'' | b'"' => quote = Some(byte),
                b'{' => open += 1,
                b'}' => open = open.saturating_sub(1),
                _ => {}
            },
        }
        at += 1;
    }
    tag.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_blocks_with_the_control_of_blanks_that_they_have() {
        assert_eq!(
            as_with(
                "a {% generation %}b{% endgeneration %} c{%-generation-%}\n{%+ endgeneration +%}"
            ),
            "a {% with %}b{% endwith %} c{%-with-%}\n{%+ endwith +%}"
        );
        assert_eq!(as_with("{%\n generation\n%}"), "{%\n with\n%}");
    }

    #[test]
    fn the_same_words_elsewhere_are_left() {
        for source in [
            "{# {% generation %} #}",
            "{% raw %}{% generation %} {{ {% endgeneration %}{% endraw %}",
            "{%- raw -%}{% if %}{% generation %}{%- endraw %}",
            "{{ '{% generation %}' ~ \"\\\"{% endgeneration %}\" ~ {'a': {'b': 1}} }}",
            "{% set x = '%} {% generation %}' %}",
            "{% set y = {'a': '}', 'b': {}} %}",
            "{% generations %}{% generation = 1 %}{% set generation = 2 %}{{ generation }}",
            "generation { % generation %} 50 % }",
            // What is not closed is refused when the template is read.
            "{% raw %}{% generation %}",
            "{{ '{% generation %}",
            "{# {% generation %}",
            "{%",
            "{",
            "",
        ] {
            assert_eq!(as_with(source), source);
        }
        // Behind them they are marks again.
        for before in ["{# ' #}", "{% raw %}'{{{% endraw %}", "{{ '\\\\' }}", "it's {{ {'a': 1} }}"]
        {
            let source = format!("{before}é{{% generation %}}");
            assert_eq!(as_with(&source), format!("{before}é{{% with %}}"));
        }
    }
}
