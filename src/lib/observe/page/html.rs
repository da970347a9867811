//! HTML that is being written. No text gets into it unescaped: markup is part of the program, and
//! everything else is text.

/// A document, or a part of one.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text, as the content of an element or of an attribute in double quotes. Names come from
    /// the configuration, and may hold any character.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(' '),
                // HTML has no way to write these.
                c if c.is_control() || is_noncharacter(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Returns the bytes.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

fn is_noncharacter(c: char) -> bool {
    let code = u32::from(c);
    matches!(code, 0xfdd0..=0xfdef) || code & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_markup_and_no_end_of_an_attribute() {
        let mut html = Html::default();
        html.raw("<b title=\"")
            .text("\"'<&>\n\0\u{7f}\u{85}\u{ffff}\u{1f600}\u{e9}");
        let expected =
            "<b title=\"&quot;&#39;&lt;&amp;&gt; \u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{1f600}\u{e9}";
        assert_eq!(html.0, expected);
    }
}
