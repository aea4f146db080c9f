//! A table that fits a terminal: where it is too wide, columns give way.

/// What a column looks like.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) side: Side,
    /// Which columns give way first: those with the highest number. 0 never gives way.
    pub(super) gives_way: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

const GAP: &str = "  ";
/// The longest cell: each other one of its column takes as much room.
const CELL_MAX: usize = 200;
/// The end of a cell that is cut.
const ELLIPSIS: &str = "...";

pub(super) const fn left(name: &'static str, gives_way: u8) -> Column {
    Column { name, side: Side::Left, gives_way }
}

pub(super) const fn right(name: &'static str, gives_way: u8) -> Column {
    Column { name, side: Side::Right, gives_way }
}

/// A line of names and a line for each row, within `width` if the columns that never give
/// way fit. Texts are ASCII, and cut where they are longer than [`CELL_MAX`].
pub(super) fn table<const N: usize>(
    columns: &[Column; N],
    rows: &[[String; N]],
    width: usize,
) -> Vec<String> {
    let widths: Vec<_> = (0..N)
        .map(|at| {
            let cells = rows.iter().map(|row| row[at].len().min(CELL_MAX));
            cells.chain([columns[at].name.len()]).max().unwrap_or(0)
        })
        .collect();
    let mut shown: Vec<_> = (0..N).collect();
    let total = |shown: &[usize]| {
        shown.iter().map(|at| widths[*at] + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    };
    while total(&shown) > width {
        let first = shown.iter().map(|at| columns[*at].gives_way).max().unwrap_or(0);
        if first == 0 {
            break;
        }
        shown.retain(|at| columns[*at].gives_way != first);
    }
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells = shown.iter().map(|at| match columns[*at].side {
            Side::Left => format!("{:<1$}", cell(*at), widths[*at]),
            Side::Right => format!("{:>1$}", cell(*at), widths[*at]),
        });
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let names = line(&|at| columns[at].name.to_owned());
    let rows = rows.iter().map(|row| line(&|at| cut(&row[at])));
    std::iter::once(names).chain(rows).collect()
}

fn cut(cell: &str) -> String {
    if cell.len() <= CELL_MAX {
        return cell.to_owned();
    }
    let kept = cell.get(..CELL_MAX - ELLIPSIS.len()).unwrap_or_default();
    format!("{kept}{ELLIPSIS}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rust's own width of a text ends at 65,535.
    #[test]
    fn a_long_text_is_cut() {
        let columns = [left("NAME", 0), right("N", 0)];
        let rows = [["x".repeat(1 << 17), "1".to_owned()], ["y".to_owned(), "2".repeat(CELL_MAX)]];
        let lines = table(&columns, &rows, 80);
        let cut = format!("{}...  ", "x".repeat(CELL_MAX - 3));
        assert!(lines[1].starts_with(&cut) && lines[1].ends_with(" 1"), "{}", lines[1]);
        assert!(lines[2].ends_with(&format!("  {}", "2".repeat(CELL_MAX))), "{}", lines[2]);
        assert!(lines.iter().all(|line| line.len() <= 2 * CELL_MAX + GAP.len()));
    }

    #[test]
    fn columns_give_way_in_their_order() {
        let columns = [left("NAME", 0), right("N", 2), left("PLACE", 1)];
        let rows = [["a", "1000", "here"], ["bcdef", "1", "there"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let at = |width| table(&columns, &rows, width);
        assert_eq!(at(18), ["NAME      N  PLACE", "a      1000  here", "bcdef     1  there"]);
        assert_eq!(at(17), ["NAME   PLACE", "a      here", "bcdef  there"]);
        assert_eq!(at(3), ["NAME", "a", "bcdef"]);
    }
}
