use super::*;

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn minutes_are_no_matter_and_hours_are() {
    let api_server = Moment::from_seconds(1_700_000_000);
    let compared = |ours: Moment| compare(Some(api_server), ours);
    for fine in [api_server, api_server.after(TOLERANCE), api_server.before(TOLERANCE)] {
        assert_eq!(compared(fine), Ok(()));
    }
    assert_eq!(compared(api_server.after(HOUR)), Err(Off::Ahead(HOUR)));
    assert_eq!(compared(api_server.before(HOUR)), Err(Off::Behind(HOUR)));
    assert_eq!(compare(None, api_server), Err(Off::Unknown));
}

#[test]
fn what_a_person_reads() {
    let said = [Off::Ahead(40 * 24 * HOUR), Off::Ahead(HOUR), Off::Behind(3 * HOUR), Off::Unknown];
    insta::assert_snapshot!(said.map(|off| off.to_string()).join("\n"));
}
