//! Each rule left out, and the walk in which that does harm. A walk that finds nothing here could find nothing at all.

use super::explorer::walk;
use super::scenarios;
use super::setting::Setting;
use crate::store::removal::rules::Rule;

fn goes_wrong(rule: Rule, setting: Setting, what: &'static str) {
    let setting = Setting { looks_for: what, ..setting.without(rule) };
    let walked = walk(&setting, 1_000_000);
    let (found, way) = walked.violation.unwrap_or_else(|| panic!("{rule:?} is not needed in {}", setting.name));
    println!("{rule:?}: {found}, after {} states:\n  {}", walked.states, way.join("\n  "));
}

macro_rules! omitted {
    ($($name:ident: $rule:ident, $scenario:ident, $what:literal;)*) => {
        $(
            #[test]
            fn $name() {
                goes_wrong(Rule::$rule, scenarios::$scenario(), $what);
            }
        )*

        /// So that no rule is added without one that shows what it is for.
        #[expect(dead_code, reason = "that it compiles is the test")]
        fn every_rule_is_here(rule: Rule) {
            match rule {
                $(Rule::$rule => {})*
            }
        }
    };
}

omitted! {
    looking_before_the_pin: PinBeforeLook, handed_over, "its blob is gone";
    relying_on_the_condemned: CondemnedIsNotUsable, condemned, "its blob is gone";
    blobs_before_marks: MarksBeforeBlobs, condemned, "its blob is gone";
    writing_a_generation_again: NewGeneration, condemned, "a deleted key was written again";
    writing_a_pin_again: NewPinKey, again, "its blob is gone";
    taking_silence_for_done: UnknownIsNotDone, handed_over, "its blob is gone";
    releasing_newer_pins: ReleasesOnlyOlder, renewed, "has no pin";
    deleting_without_a_mark: CondemnedFirst, handed_over, "its blob is gone";
    marks_after_pins: PinsAfterMarks, handed_over, "its blob is gone";
    pins_of_one_cluster_only: EveryCluster, handed_over, "its blob is gone";
    taking_a_mark_back: MarksStay, condemned, "its blob is gone";
    no_tombstone: Tombstone, late, "its blob is gone";
    no_witness: Witness, handed_over, "its blob is gone";
    an_early_witness: LaterWitness, paged, "its blob is gone";
    a_witness_that_is_gone: WitnessThere, three_runs, "its blob is gone";
    giving_up_reading: LooksAgain, read_meanwhile, "a reader did not find";
    stale_holders: FreshHolders, silent, "is gone";
    unknown_holders: KnownHolders, undeclared, "is gone";
    a_declaration_by_its_arrival: StatedTime, silent, "is gone";
    no_brake: Brake, emptied, "is gone";
    a_reference_by_its_arrival: StatedReference, emptied, "is gone";
    a_word_for_everything: WordForOne, emptied, "is gone";
    no_grace: Grace, in_grace, "the origin had to be asked";
}
