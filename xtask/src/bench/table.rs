//! The table that a person reads: pure.

use super::sheet::{Compared, Finding, Spread};

const HEADS: [&str; 8] = ["row", "what", "larder", "beside", "theirs", "ratio", "goal", "note"];

/// All of it, without an end of line.
pub(super) fn render(findings: &[Finding]) -> String {
    let mut lines = vec![HEADS.map(str::to_owned)];
    let mut last_row = None;
    for finding in findings {
        let name = if last_row == Some(finding.row) { "" } else { finding.row.name() };
        last_row = Some(finding.row);
        let mut ours = [name, &finding.what, &spread(&finding.larder)].map(str::to_owned);
        let mut goal = finding.goal.unwrap_or_default().to_owned();
        let mut note = finding.note.clone();
        let mut beside: Vec<[String; 3]> = finding
            .peers
            .iter()
            .map(|peer| {
                let compared = peer.compared.as_ref().map_or_else(String::new, |compared| match finding.compared {
                    Compared::Difference if compared.median > 0.0 => format!("+{}", spread(compared)),
                    _ => spread(compared),
                });
                [peer.name.to_owned(), spread(&peer.value), compared]
            })
            .collect();
        if beside.is_empty() {
            beside.push(Default::default());
        }
        for [peer, value, compared] in beside {
            let [row, what, larder] = std::mem::take(&mut ours);
            lines.push([
                row,
                what,
                larder,
                peer,
                value,
                compared,
                std::mem::take(&mut goal),
                std::mem::take(&mut note),
            ]);
        }
    }
    let mut widths = [0; HEADS.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let padded = lines.iter().map(|line| {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    });
    padded.collect::<Vec<_>>().join("\n")
}

/// `1.02 (0.99–1.10)`, or the one number when there is no more to say.
fn spread(spread: &Spread) -> String {
    let [lowest, median, highest] = [spread.lowest, spread.median, spread.highest].map(number);
    if lowest == highest { median } else { format!("{median} ({lowest}–{highest})") }
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 99.5 => format!("{value:.0}"),
        size if size >= 9.95 => format!("{value:.1}"),
        size if size >= 0.0995 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::Row;
    use crate::bench::sheet::{LARDER, Sheet};

    #[test]
    fn reads_well() {
        let mut sheet = Sheet::default();
        for (ours, direct, other) in [(4.04, 4.0, 130.0), (4.1, 4.02, 131.0)] {
            sheet.note("wall, s", LARDER, ours);
            sheet.note("wall, s", "direct", direct);
            sheet.note("wall, s", "nginx cache", other);
        }
        sheet.note("GETs", LARDER, 1.0);
        let wall = sheet.finding(Row::Herd, "wall, s", Compared::Ratio).unwrap().goal("≤ 1.05").noted("a note");
        let gets = sheet.finding(Row::Herd, "GETs", Compared::NotAtAll).unwrap();
        let expected = "\
row   what     larder            beside       theirs             ratio                 goal    note
herd  wall, s  4.07 (4.04–4.10)  direct       4.01 (4.00–4.02)   1.01 (1.01–1.02)      ≤ 1.05  a note
                                 nginx cache  130 (130–131)      0.031
      GETs     1.00";
        let rendered = render(&[wall, gets]);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&rendered), words(expected), "{rendered}");
        let column = |line: &str, word: &str| line.split_once(word).unwrap().0.chars().count();
        let lines: Vec<_> = rendered.lines().collect();
        assert_eq!(column(lines[0], "beside"), column(lines[1], "direct"), "{rendered}");
    }
}
