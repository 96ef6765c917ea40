//! A curve as SVG: payments a second above, what one takes below, both on scales of powers of ten.

use std::fmt::Write;

use super::Point;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 50.0;
const PANEL: f64 = 190.0;
const BETWEEN: f64 = 50.0;

/// Draws the points in equal steps.
pub(super) fn chart(title: &str, over: &str, points: &[Point]) -> String {
    let height = TOP + 2.0 * PANEL + BETWEEN + 60.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    let rates: Vec<f64> = points.iter().map(|it| it.per_second).collect();
    panel(&mut text, TOP, "payments a second", &[("", "#1f5fa8", &rates)]);
    let [half, most] = [|it: &Point| it.p50_ms, |it: &Point| it.p99_ms];
    let [half, most]: [Vec<f64>; 2] = [half, most].map(|of| points.iter().map(of).collect());
    let lines = [("p50", "#2e8540", &half), ("p99", "#b3261e", &most)];
    let below = TOP + PANEL + BETWEEN;
    panel(&mut text, below, "milliseconds until acknowledged", &lines);
    for (at, point) in points.iter().enumerate() {
        let (x, y) = (across(at, points.len()), below + PANEL + 18.0);
        write(
            &mut text,
            format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{}</text>\n", point.at),
        );
    }
    let (x, y) = (f64::midpoint(LEFT, WIDTH - RIGHT), below + PANEL + 40.0);
    write(
        &mut text,
        format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{over}</text>\n</svg>\n"),
    );
    text
}

/// Writing to a string cannot fail.
fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

#[expect(clippy::cast_precision_loss, reason = "a handful of points")]
fn across(at: usize, count: usize) -> f64 {
    let room = WIDTH - LEFT - RIGHT - 60.0;
    LEFT + 30.0 + room * at as f64 / count.saturating_sub(1).max(1) as f64
}

/// One scale with its lines.
fn panel(text: &mut String, top: f64, name: &str, lines: &[(&str, &str, &Vec<f64>)]) {
    let values = lines.iter().flat_map(|(_, _, values)| values.iter().copied()).map(|it| it.max(1e-3));
    let (low, high) =
        values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), it| (low.min(it), high.max(it)));
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let high = if high > low { high } else { low + 1.0 };
    let down = |value: f64| top + PANEL * (high - value.max(1e-3).log10()) / (high - low);
    write(text, format_args!("<text x=\"{LEFT}\" y=\"{}\">{name}</text>\n", top - 8.0));
    let mut power = low;
    while power <= high {
        let y = down(10_f64.powf(power));
        let (end, label) = (WIDTH - RIGHT, 10_f64.powf(power));
        write(text, format_args!("<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#ddd\"/>\n"));
        write(
            text,
            format_args!(
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
                LEFT - 8.0,
                y + 4.0
            ),
        );
        power += 1.0;
    }
    for (name, colour, values) in lines {
        let place = |(at, value): (usize, &f64)| (across(at, values.len()), down(*value));
        let points: Vec<String> =
            values.iter().enumerate().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        write(
            text,
            format_args!(
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n"
            ),
        );
        for (x, y) in values.iter().enumerate().map(place) {
            write(text, format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"));
        }
        if let Some((x, y)) = values.iter().enumerate().map(place).next_back() {
            write(
                text,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>\n",
                    x + 6.0,
                    y - 6.0
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_within_the_picture() {
        let point = |at: &str, per_second| Point { at: at.to_owned(), per_second, p50_ms: 0.5, p99_ms: 12.0 };
        let text = chart("title", "over", &[point("1", 12.0), point("2", 3_400_000.0), point("3", 0.0)]);
        assert_eq!(text.matches("<circle").count(), 9);
        let places =
            text.split("cy=\"").skip(1).filter_map(|rest| rest.split('"').next()?.parse::<f64>().ok());
        assert!(places.into_iter().all(|y| (TOP..=TOP + 2.0 * PANEL + BETWEEN).contains(&y)), "{text}");
    }
}
