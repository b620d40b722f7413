//! The figures as a drawing, without anything but text.

use std::fmt::Write as _;

use super::peer::Peer;

/// Bars of one row: whose, what it cost, and that as a multiple of what wsha did.
#[derive(Clone, Debug)]
pub struct Group {
    /// What was measured, with its unit.
    pub name: String,
    /// In their order.
    pub bars: Vec<Bar>,
}

/// A subject of a row.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What is called so.
    pub name: String,
    /// In whose colour.
    pub peer: Peer,
    /// Median cost.
    pub cost: f64,
    /// Median of its ratio to the first one's.
    pub ratio: f64,
}

const LEFT: f64 = 250.0;
const UNIT: f64 = 120.0;
/// Longer bars are cut, and say so.
const LONGEST: f64 = 4.0;
const BAR: f64 = 15.0;
const GAP: f64 = 14.0;

fn colour(peer: Peer) -> &'static str {
    match peer {
        Peer::Wsha => "#0b6e4f",
        Peer::WshaIoUring => "#4fa083",
        Peer::Nginx => "#5b8fd6",
        Peer::Nginx64k => "#8fb4e8",
        Peer::Haproxy => "#c77d2e",
        Peer::Envoy => "#a05195",
    }
}

/// An SVG of bars, each as long as what a subject costs is a multiple of what wsha does; shorter is better.
pub fn svg(groups: &[Group], footer: &str) -> Result<String, std::fmt::Error> {
    let mut body = String::new();
    let mut y = 40.0;
    for group in groups {
        for (at, bar) in group.bars.iter().enumerate() {
            let Bar {
                name: subject,
                peer,
                cost,
                ratio,
            } = bar;
            if at == 0 {
                let name = &group.name;
                writeln!(body, r#"<text x="8" y="{:.0}">{name}</text>"#, y + 12.0)?;
            }
            let shown = ratio.min(LONGEST);
            let (width, end) = (shown * UNIT, LEFT + shown * UNIT + 6.0);
            let cut = if *ratio > LONGEST { " (bar cut)" } else { "" };
            writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y:.0}" width="{width:.1}" height="{:.0}" fill="{}"/>"#,
                BAR - 2.0,
                colour(*peer)
            )?;
            writeln!(
                body,
                r#"<text x="{end:.1}" y="{:.0}">{subject} {} ({ratio:.2}){cut}</text>"#,
                y + 11.0,
                figure(*cost)
            )?;
            y += BAR;
        }
        y += GAP;
    }
    let one = LEFT + UNIT;
    let (width, height) = (LEFT + LONGEST * UNIT + 220.0, y + 24.0);
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"14\">Cost beside wsha (= 1); shorter is better</text>\n\
         {body}<line x1=\"{one}\" y1=\"32\" x2=\"{one}\" y2=\"{y}\" stroke=\"#666\" stroke-dasharray=\"3 3\"/>\n\
         <text x=\"8\" y=\"{:.0}\" fill=\"#666\">{footer}</text>\n</svg>\n",
        y + 12.0
    ))
}

/// As many digits as mean something.
pub fn figure(cost: f64) -> String {
    let digits = match cost {
        cost if cost < 1.0 => 3,
        cost if cost < 10.0 => 2,
        cost if cost < 1000.0 => 1,
        _ => 0,
    };
    format!("{cost:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_ratios_and_cut_where_they_would_leave_the_picture() {
        let bar = |peer: Peer, ratio| Bar {
            name: peer.to_string(),
            peer,
            cost: ratio * 10.0,
            ratio,
        };
        let group = Group {
            name: "64 B x1, µs".to_owned(),
            bars: vec![bar(Peer::Wsha, 1.0), bar(Peer::Nginx, 7.0)],
        };
        let text = svg(&[group], "two rounds").unwrap();
        assert!(text.contains(r#"width="120.0""#) && text.contains(r#"width="480.0""#));
        assert_eq!(text.matches("(bar cut)").count(), 1);
    }
}
