//! What the script is told of others, and what it answers.

use std::collections::BTreeMap;
use std::fmt::Write;

use tollgate_policy::limit::slices::{Granted, Holder, Share, Standing};

use super::{PoolId, Synced};

pub(super) fn told(known: &BTreeMap<Holder, Share>) -> String {
    let mut text = String::new();
    for (holder, share) in known {
        let Share { ceiling, spent, resets_at, counts_for, .. } = share;
        let _ = write!(text, "{holder},{ceiling},{spent},{resets_at},{counts_for};");
    }
    text
}

pub(super) fn read(answer: &[String], asks: usize) -> Option<Synced> {
    let rebuilding = match answer {
        [kind, latest] => {
            let latest = latest.parse().ok()?;
            return match kind.as_str() {
                "superseded" => Some(Synced::Superseded { latest }),
                "overtaken" => Some(Synced::Overtaken { latest }),
                _ => None,
            };
        }
        [kind, ..] if kind == "rebuilding" => true,
        [kind, ..] if kind == "granting" => false,
        _ => return None,
    };
    let [_, life, lapses, heard, live, ended, wanted, rest @ ..] = answer else { return None };
    let standing = Standing {
        life: life.as_str().into(),
        lapses: lapses.parse().ok()?,
        rebuilding,
        heard: heard == "1",
        live: live.parse().ok()?,
        ended: ended.parse().ok()?,
    };
    let (wanted, counts) = rest.split_at_checked(wanted.parse().ok()?)?;
    let pool = |name: &String| {
        let (limit, key) = name.split_once(':')?;
        Some(PoolId { limit: limit.into(), key: key.into() })
    };
    let wanted = wanted.iter().map(pool).collect::<Option<_>>()?;
    let grants: Vec<Granted> = counts.chunks(4).map(grant).collect::<Option<_>>()?;
    (grants.len() == asks).then_some(Synced::Granted { standing, wanted, grants })
}

fn grant(count: &[String]) -> Option<Granted> {
    let [more, wanted, others_spent, others] = count else { return None };
    Some(Granted {
        more: more.parse().ok()?,
        wanted: wanted == "1",
        preceded: wanted == "p",
        others_spent: others_spent.parse().ok()?,
        others: others.split_terminator(';').map(share).collect::<Option<_>>()?,
    })
}

fn share(text: &str) -> Option<(Holder, Share)> {
    let mut parts = text.split(',');
    let (replica, process) = parts.next()?.rsplit_once('~')?;
    let holder = Holder { replica: replica.into(), process: process.parse().ok()? };
    let mut number = || parts.next()?.parse().ok();
    let (ceiling, spent, resets_at, counts_for) = (number()?, number()?, number()?, number()?);
    Some((holder, Share { ceiling, spent, resets_at, counts_for, told_at: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let answer = words(
            "granting r:7 2 1 3 4 1 budget/all/tokens/day/caller:spiffe://a/b 500 p 120 a~1,10,5,99,7;b~2,20,0,98,7;",
        );
        let Some(Synced::Granted { standing, wanted, grants }) = read(&answer, 1) else {
            panic!("{answer:?}")
        };
        assert_eq!((&*standing.life, standing.lapses, standing.live, standing.ended), ("r:7", 2, 3, 4));
        assert!(standing.grants());
        assert_eq!((&*wanted[0].limit, &*wanted[0].key), ("budget/all/tokens/day/caller", "spiffe://a/b"));
        let [grant] = &grants[..] else { panic!("{grants:?}") };
        assert_eq!((grant.more, grant.wanted, grant.preceded, grant.others_spent), (500, false, true, 120));
        let holder = Holder { replica: "a".into(), process: 1 };
        let share = Share { ceiling: 10, spent: 5, resets_at: 99, counts_for: 7, told_at: 0 };
        assert_eq!(grant.others[&holder], share);
        assert_eq!(told(&grant.others), "a~1,10,5,99,7;b~2,20,0,98,7;");
        assert!(matches!(read(&words("overtaken 9"), 1), Some(Synced::Overtaken { latest: 9 })));
        assert!(matches!(read(&words("superseded 9"), 1), Some(Synced::Superseded { latest: 9 })));
        for wrong in [
            "",
            "granting 7",
            "granting r:7 2 1 3 4 0",
            "granting r:7 2 1 3 4 9 500 1 120 x",
            "granting r:7 2 1 3 4 0 500 1 120",
            "granting r:7 2 1 3 4 0 -1 1 120 x",
            "granting r:7 2 1 3 4 0 1 1 120 x,1,1,1,1;",
            "else 1 2",
        ] {
            assert!(read(&words(wrong), 1).is_none(), "{wrong}");
        }
    }
}
