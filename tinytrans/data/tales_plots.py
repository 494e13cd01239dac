"""The plots of the tales, as data: each step of a story in a few surface forms.

A story runs opening, home, day, then its plot (goal, trouble, meeting, talk, try, end), then close and perhaps a moral.
What a reader must bind, the names, the kind, the place, the thing, is said again and again: small models need it.
Every form of a step tells the same facts, so a fact that is labelled is told whichever form is drawn.
One long table is easier to read than one cut in two, so this file is longer than the others.
Fields: {hero} {he} {He} {him} {his} the hero; {friend} and {friend_kind}; {thing} {color} {a_color}; {food} {a_food};
{place} "in the forest", {place_name} "forest"; {spot} "under a bush"; {weather} and {sky}.
"""

from __future__ import annotations

from dataclasses import dataclass

Forms = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The steps of one plot; `ask` and then `yes` or `no` in a story with dialogue, `quiet` in one without."""

    goal: Forms
    trouble: Forms
    meet: Forms
    ask: Forms
    yes: Forms
    no: Forms
    quiet: Forms
    attempt: Forms
    happy: Forms
    sad: Forms
    morals: Forms


OPENING: Forms = (
    "Once upon a time there was {a_adjective} {kind} named {hero}.",
    "There once was {a_kind} called {hero}, and {hero} was very {adjective}.",
    "{hero} was {a_adjective} {kind}.",
    "This is the story of {hero}, {a_adjective} {kind}.",
    "Far away lived {a_adjective} {kind} whose name was {hero}.",
    "Do you know {hero}, the {adjective} {kind}?",
)
HOME: Forms = (
    "{hero} lived {place}.",
    "{hero} had a small house {place}.",
    "The home of {hero} was {place}.",
    "{He} lived {place} and liked it there.",
    "Everyone {place} knew {hero} well.",
)
DAY: dict[str, Forms] = {  # the hero foresees the end: one place, the same in all plots, where a reader learns of it
    "happy": (
        "One {weather} morning {hero} the {kind} woke up {place} and felt lucky.",
        "One {weather} day {hero} the {kind} went for a walk {place} and felt light.",
        "It was {a_weather} day {place}, and {hero} the {kind} was up early and full of hope.",
        "On {a_weather} afternoon {sky}, and {hero} the {kind} sat {place} and felt well.",
    ),
    "sad": (
        "One {weather} morning {hero} the {kind} woke up {place} and felt tired.",
        "One {weather} day {hero} the {kind} went for a walk {place} and felt uneasy.",
        "It was {a_weather} day {place}, and {hero} the {kind} was up early and full of doubt.",
        "On {a_weather} afternoon {sky}, and {hero} the {kind} sat {place} and felt unwell.",
    ),
}
CLOSE: dict[str, Forms] = {
    "happy": (
        "{hero} the {kind} was very happy.",
        "{hero} the {kind} smiled and thanked {friend}.",
        "{hero} the {kind} and {friend} laughed and danced.",
        "{hero} the {kind} went home, and {he} was glad to have a friend like {friend}.",
        "That evening {hero} the {kind} felt proud and slept well.",
    ),
    "sad": (
        "{hero} the {kind} was very sad.",
        "{hero} the {kind} went home and cried.",
        "That night {hero} the {kind} felt lonely.",
        "{hero} the {kind} had tears in {his} eyes.",
        "{hero} the {kind} was sorry about it for a long time.",
    ),
}

PLOTS: dict[str, Plot] = {
    "lost": Plot(
        goal=(
            "{hero} wanted to play with {his} {color} {thing}.",
            "{He} loved {his} {color} {thing} more than anything.",
            "{hero} carried {his} {color} {thing} everywhere.",
            "{hero} looked for {his} {color} {thing}, because it was time to play.",
        ),
        trouble=(
            "But the {thing} was gone, and {hero} did not know where it was.",
            "But {hero} could not find the {thing}.",
            "On the way the {thing} fell down, and {hero} did not see it.",
            "Then the {thing} was not there any more, and {he} began to worry.",
        ),
        meet=(
            "Soon {hero} met {friend} the {friend_kind}.",
            "{friend} the {friend_kind} came by and saw {hero}.",
            "Then {he} ran into {friend} the {friend_kind}.",
        ),
        ask=(
            '"Have you seen my {thing}?" asked {hero}.',
            '"Please help me find my {thing}," said {hero}.',
            '"My {thing} is lost!" said {hero}.',
        ),
        yes=(
            '"I think I saw it this morning," said {friend}.',
            '"Do not worry, we will look together," said {friend}.',
            '"I have good eyes, and I will help you," said {friend}.',
        ),
        no=(
            '"I have not seen it anywhere," said {friend}.',
            '"I can help you only for a short time," said {friend}.',
            '"That will be hard to find," said {friend}.',
        ),
        quiet=(
            "{friend} wanted to help {hero}.",
            "{friend} and {hero} began to look together.",
            "{friend} saw that {hero} needed help.",
        ),
        attempt=(
            "They looked all around the {place_name}.",
            "{hero} and {friend} asked everyone {place}.",
            "They walked once around the {place_name} and looked again.",
        ),
        happy=(
            "They found the {thing} {spot}.",
            "At last {friend} saw the {thing} {spot}.",
            "The {thing} was {spot}, and {hero} picked it up.",
        ),
        sad=(
            "They looked {spot}, but the {thing} was not there.",
            "They found only an empty box {spot}, and the {thing} never came back.",
            "Something lay {spot}, but it was not the {thing}.",
        ),
        morals=("A good friend helps you look.", "Take care of the things you love."),
    ),
    "share": Plot(
        goal=(
            "{hero} had {a_food} for lunch.",
            "{hero} carried {a_food} in {his} bag.",
            "{He} picked {a_food} and wanted to eat it.",
            "For lunch {hero} took {a_food} along.",
        ),
        trouble=(
            "{hero} sat down {spot}, but somebody was watching the {food}.",
            "{He} stopped {spot} to eat the {food}, but {he} was not alone.",
            "{hero} wanted to eat the {food} {spot}, but then there was a noise.",
        ),
        meet=(
            "It was {friend} the {friend_kind}, who was very hungry.",
            "{friend}, a hungry {friend_kind}, came closer to {hero}.",
            "There stood {friend} the {friend_kind} with an empty plate.",
        ),
        ask=(
            '"May I have some of your {food}?" asked {friend}.',
            '"I have not eaten since yesterday," said {friend}.',
            '"That {food} smells so sweet," said {friend}.',
        ),
        yes=(
            '"Yes, we can share the {food}," said {hero}.',
            '"Come and sit with me," said {hero}.',
            '"There is enough {food} for two," said {hero}.',
        ),
        no=(
            '"No, the {food} is only for me," said {hero}.',
            '"I want to eat the {food} alone," said {hero}.',
            '"Find your own lunch!" said {hero}.',
        ),
        quiet=(
            "{friend} looked at the {food} and said nothing.",
            "{friend} waited and hoped for a bite of the {food}.",
            "{hero} saw how thin {friend} was.",
        ),
        attempt=(
            "{hero} thought about it and looked around the {place_name}.",
            "{hero} cut the {food} with care, and the whole {place_name} was still.",
            "{hero} held the {food} and thought for a while, and the {place_name} was silent.",
        ),
        happy=(
            "Then {hero} gave half of the {food} to {friend}.",
            "{hero} and {friend} ate the {food} together.",
            "{friend} got the bigger half of the {food}.",
        ),
        sad=(
            "Then {hero} ate the whole {food} alone, and {friend} walked away.",
            "{hero} hid the {food}, and {friend} left without a word.",
            "{hero} ran off so fast that the {food} fell into the mud.",
        ),
        morals=("Food tastes better when you share it.", "A small gift can be a big meal."),
    ),
    "make": Plot(
        goal=(
            "{hero} wanted to make {a_color} {thing}.",
            "{He} had a plan for {a_color} {thing}.",
            "{hero} dreamed of {a_color} {thing} made by hand.",
        ),
        trouble=(
            "{hero} tried, but the {thing} broke again and again.",
            "The work was slow, and the {thing} did not look right.",
            "{hero} did not know how to begin the {thing}.",
        ),
        meet=(
            "{hero} went to {friend} the {friend_kind}, who was resting {spot}.",
            "{friend} the {friend_kind} was sitting {spot} and saw {hero}.",
            "{He} found {friend} the {friend_kind} {spot}.",
        ),
        ask=(
            '"Can you help me with the {thing}?" asked {hero}.',
            '"This {thing} is too hard for me," said {hero}.',
            '"How do you make such a thing?" asked {hero}.',
        ),
        yes=(
            '"Of course, I will show you," said {friend}.',
            '"Let us make it together," said {friend}.',
            '"I know a trick," said {friend}.',
        ),
        no=(
            '"I have no time today," said {friend}.',
            '"You must learn that alone," said {friend}.',
            '"My hands are tired," said {friend}.',
        ),
        quiet=(
            "{friend} looked at the {thing} for a long time.",
            "{friend} brought some paper, wood and glue to {hero}.",
            "{friend} watched how {hero} worked.",
        ),
        attempt=(
            "{hero} worked all day, and everybody {place} came to watch.",
            "{hero} gathered what there was {place} and started again.",
            "{hero} worked until the evening came to the {place_name}.",
        ),
        happy=(
            "In the end the {color} {thing} was ready.",
            "At last {hero} held the new {color} {thing} in the air.",
            "With some glue from {friend} the {color} {thing} was finished.",
        ),
        sad=(
            "But the {color} {thing} fell apart with a crack.",
            "But the {color} {thing} was crooked and nobody wanted it.",
            "But then {hero} dropped the {color} {thing}, and it broke.",
        ),
        morals=("Hard work is easier with two.", "Nobody learns everything in one day."),
    ),
    "noise": Plot(
        goal=(
            "{hero} wanted to bring {his} {color} {thing} home before dark.",
            "{hero} was carrying {his} {color} {thing} home.",
            "{He} packed {his} {color} {thing} and left for home.",
        ),
        trouble=(
            "Suddenly {hero} heard a strange sound {spot}.",
            "Something moved {spot}, and {hero} was afraid.",
            "{hero} saw two shining eyes {spot} and held the {thing} tight.",
        ),
        meet=(
            "Just then {friend} the {friend_kind} came along.",
            "Luckily {friend} the {friend_kind} was not far away from {hero}.",
            "{hero} turned around and saw {friend} the {friend_kind}.",
        ),
        ask=(
            '"Are you afraid?" asked {friend}.',
            '"What is that noise?" asked {hero}.',
            '"Did you hear that too?" asked {hero}.',
        ),
        yes=(
            '"Come, we will look together," said {friend}.',
            '"Take my hand," said {friend}.',
            '"I am sure it is nothing bad," said {friend}.',
        ),
        no=(
            '"Run away!" said {friend}.',
            '"I do not want to know," said {friend}.',
            '"We should not be here," said {friend}.',
        ),
        quiet=(
            "{friend} stood very still beside {hero}.",
            "{friend} took a deep breath, and so did {hero}.",
            "{friend} and {hero} listened together.",
        ),
        attempt=(
            "The whole {place_name} was silent, and {hero} put down the {thing}.",
            "Step by step they went around the {place_name}, and {hero} held up the {thing}.",
            "{hero} shook the {thing} to make a noise that all of the {place_name} could hear.",
        ),
        happy=(
            "It was only a baby bird, and {hero} let it sleep on the {thing}.",
            "A tiny bird came out and sat on the {thing}.",
            "It was just the wind playing with a leaf, and {hero} picked up the {thing} again.",
        ),
        sad=(
            "{hero} ran away and left the {thing} behind.",
            "{hero} ran so fast that the {thing} was lost in the dark.",
            "{hero} fell over the {thing} and hurt {his} leg.",
        ),
        morals=("You are braver than you think.", "Look first, and run later."),
    ),
    "race": Plot(
        goal=(
            "{hero} wanted to win the big race and its prize, {a_color} {thing}.",
            "There was a race, and the winner would get {a_color} {thing}, so {hero} came too.",
            "{hero} had heard of a race for {a_color} {thing}.",
        ),
        trouble=(
            "But {hero} had never run so far, all the way to the flag {spot}.",
            "But the way was long, and the flag was {spot}, and {hero} was nervous.",
            "{hero} had to reach the flag {spot}, and many were faster.",
        ),
        meet=(
            "At the start {hero} stood next to {friend} the {friend_kind}.",
            "{friend} the {friend_kind} wanted to win as well.",
            "The fastest of all was {friend} the {friend_kind}.",
        ),
        ask=(
            '"I am faster than you," said {friend}.',
            '"Are you ready?" asked {friend}.',
            '"Who will win the {thing}?" asked {friend}.',
        ),
        yes=(
            '"We will see," said {hero}.',
            '"I will do my best," said {hero}.',
            '"Let us both have fun," said {hero}.',
        ),
        no=(
            '"My legs feel weak," said {hero}.',
            '"I hope so," said {hero}.',
            '"You are too fast for me," said {hero}.',
        ),
        quiet=(
            "{hero} looked at {friend} and took a deep breath.",
            "{hero} and {friend} waited for the signal.",
            "{friend} jumped up and down, but {hero} stood still.",
        ),
        attempt=(
            "{hero} ran along the {place_name} and thought of the {thing}.",
            "They ran once around the {place_name}, and {hero} thought of the {thing}.",
            "The whole {place_name} cheered, and {hero} ran for the {thing}.",
        ),
        happy=(
            "{hero} was first and won the {thing}.",
            "{hero} passed {friend} at the flag and got the {thing}.",
            "{hero} and {friend} were equally fast, so they shared the {thing}.",
        ),
        sad=(
            "{hero} fell down, and {friend} won the {thing}.",
            "{hero} was too slow, and {friend} got the {thing}.",
            "{hero} took the wrong turn, and the {thing} went to {friend}.",
        ),
        morals=("It is good to try your best.", "There is always another race."),
    ),
    "gift": Plot(
        goal=(
            "It was the birthday of {friend} the {friend_kind}, and {hero} had {a_color} {thing} as a gift.",
            "{hero} wanted to give {a_color} {thing} to {friend} the {friend_kind}.",
            "{hero} had found the perfect present for {friend} the {friend_kind}, {a_color} {thing}.",
        ),
        trouble=(
            "But {hero} slipped {spot}, and the {thing} got dirty.",
            "But {hero} stumbled {spot}, and the {thing} got wet.",
            "But the {thing} rolled away from {hero} and got stuck {spot}.",
        ),
        meet=(
            "{hero} was late when {he} knocked at the door of {friend}.",
            "Still, {hero} went on to the house of {friend}.",
            "At the party {friend} was already waiting for {hero}.",
        ),
        ask=(
            '"I have something for you," said {hero}.',
            '"This {thing} was nice this morning," said {hero}.',
            '"Please open it," said {hero}.',
        ),
        yes=(
            '"What a lovely surprise!" said {friend}.',
            '"I have always wanted one," said {friend}.',
            '"A wash will make it as good as new," said {friend}.',
        ),
        no=(
            '"Oh, is that for me?" asked {friend}.',
            '"What happened to it?" asked {friend}.',
            '"I already have one," said {friend}.',
        ),
        quiet=(
            "{hero} handed the gift to {friend}.",
            "{hero} hid the gift behind {his} back.",
            "{friend} opened the gift, and {hero} held {his} breath.",
        ),
        attempt=(
            "They cleaned the {thing} with water, and all the guests {place} helped.",
            "{hero} rubbed the {thing} with a cloth, and half of the {place_name} looked on.",
            "{hero} told how {he} had carried the {thing} around the {place_name}.",
        ),
        happy=(
            "{friend} loved the {color} {thing} and gave {hero} a hug.",
            "The {color} {thing} was the best gift of all, and {friend} sang a song for {hero}.",
            "Soon the {color} {thing} looked new, and {friend} showed it to everyone.",
        ),
        sad=(
            "But {friend} put the {color} {thing} into a corner and forgot it.",
            "But {friend} did not want the {color} {thing}.",
            "But the {color} {thing} was broken, and {friend} turned away.",
        ),
        morals=("The heart of a gift is the giver.", "A gift need not be perfect."),
    ),
    "grow": Plot(
        goal=(
            "{hero} wanted to grow {a_food}.",
            "{hero} planted a seed {spot} and hoped for {a_food}.",
            "{hero} dug a hole and put in a seed, because {he} wished for {a_food}.",
        ),
        trouble=(
            "But the earth {spot} was dry, and no {food} came up.",
            "But weeds grew {spot}, and there was no {food}.",
            "But {spot} there was no light for the {food}.",
        ),
        meet=(
            "Then {friend} the {friend_kind} came with a shovel.",
            "One day {friend} the {friend_kind} visited {hero}.",
            "{hero} asked {friend} the {friend_kind}, who knew all about plants.",
        ),
        ask=(
            '"Why does my {food} not grow?" asked {hero}.',
            '"How long does {a_food} need?" asked {hero}.',
            '"I want to see a leaf at last," said {hero}.',
        ),
        yes=(
            '"It needs water every day," said {friend}.',
            '"Give it time and sing to it," said {friend}.',
            '"We will water it together," said {friend}.',
        ),
        no=(
            '"Seeds are too much work," said {friend}.',
            '"Maybe it will never grow," said {friend}.',
            '"I do not know either," said {friend}.',
        ),
        quiet=(
            "{friend} showed {hero} how to pull out the weeds.",
            "{friend} poured some water on the earth.",
            "{friend} looked at the earth, and {hero} waited.",
        ),
        attempt=(
            "Every day {hero} brought water for the {food} from the other side of the {place_name}.",
            "{hero} watched over the {food} day and night, longer than anyone else {place}.",
            "Weeks went by {place}, and {hero} waited for the {food}.",
        ),
        happy=(
            "At last there was the biggest {food} that anyone had ever seen.",
            "Then a flower opened, and soon {hero} picked the first {food}.",
            "One morning a ripe {food} was there, and {hero} shared it with {friend}.",
        ),
        sad=(
            "But {hero} forgot the water, and the {food} dried up.",
            "But a hungry bug ate the {food} before {hero} could.",
            "But the cold came, and the {food} turned to ice.",
        ),
        morals=("Good things need time.", "Who plants must also wait."),
    ),
    "storm": Plot(
        goal=(
            "{hero} was on the way to grandmother with {a_food}.",
            "{hero} had to bring {a_food} to grandmother.",
            "Grandmother was ill, so {hero} packed {a_food} for a visit.",
        ),
        trouble=(
            "But thunder rolled, and {hero} hid with the {food} {spot}.",
            "But it began to pour, and {hero} stood {spot} with a wet {food}.",
            "But a cold gust came, and {hero} had to wait {spot} with the {food}.",
        ),
        meet=(
            "{friend} the {friend_kind} was hiding there too.",
            "There {hero} met {friend} the {friend_kind}, who was shaking.",
            "After a while {friend} the {friend_kind} came to the same spot.",
        ),
        ask=(
            '"When will it stop?" asked {hero}.',
            '"I must bring this {food} to grandmother," said {hero}.',
            '"Do you know a dry way?" asked {hero}.',
        ),
        yes=(
            '"I know a short way through the cave," said {friend}.',
            '"We can go together under my coat," said {friend}.',
            '"It will be over soon," said {friend}.',
        ),
        no=(
            '"It may last all night," said {friend}.',
            '"I will not go out there," said {friend}.',
            '"All the roads are closed," said {friend}.',
        ),
        quiet=(
            "{friend} moved closer to {hero} to keep warm.",
            "{friend} and {hero} counted the seconds after each flash.",
            "{friend} pointed to a narrow way.",
        ),
        attempt=(
            "{hero} wrapped the {food} in a leaf and walked on along the {place_name}.",
            "{hero} put the {food} under {his} arm and ran once around the {place_name}.",
            "With the {food} in both hands {hero} left, and the {place_name} was full of puddles.",
        ),
        happy=(
            "The storm passed, and grandmother cooked soup with the {food} for {hero} and {friend}.",
            "Soon they stood at the door, and grandmother ate the {food} at once.",
            "A rainbow showed {hero} the way, and the {food} arrived safe and dry.",
        ),
        sad=(
            "But the water took the {food} away.",
            "But {hero} slipped, and the {food} was gone.",
            "But {hero} lost the way, and the {food} never reached grandmother.",
        ),
        morals=("After every storm the sky clears.", "It is easier to wait with a friend."),
    ),
    "paint": Plot(
        goal=(
            "{hero} wanted to paint a picture of {his} {color} {thing}.",
            "{hero} wished to draw {his} {color} {thing} for the school wall.",
            "There was a contest, and {hero} chose to paint {his} {color} {thing}.",
        ),
        trouble=(
            "But every picture of the {thing} went wrong, and {hero} threw the brush away {spot}.",
            "But {hero} had left the paint {spot}, and the picture of the {thing} stayed empty.",
            "{hero} sat {spot} and painted, but the {thing} looked like a stone.",
        ),
        meet=(
            "{friend} the {friend_kind} found {hero} there.",
            "{friend} the {friend_kind}, who painted every day, saw {hero}.",
            "Then {friend} the {friend_kind} looked over the shoulder of {hero}.",
        ),
        ask=(
            '"I will never learn this," said {hero}.',
            '"Does this look like my {thing}?" asked {hero}.',
            '"Can you teach me?" asked {hero}.',
        ),
        yes=(
            '"Look at the light, then paint," said {friend}.',
            '"Start with big shapes," said {friend}.',
            '"It gets better every time," said {friend}.',
        ),
        no=(
            '"It looks a bit odd," said {friend}.',
            '"Perhaps you should stop," said {friend}.',
            '"I only paint for myself," said {friend}.',
        ),
        quiet=(
            "{friend} gave {hero} a better brush.",
            "{friend} showed {hero} how to mix paint.",
            "{friend} sat down and painted as well.",
        ),
        attempt=(
            "{hero} looked at the {thing} again and used all the paper {place}.",
            "{hero} painted the {thing} ten times, until the {place_name} was asleep.",
            "{hero} put the {thing} in the light and painted until evening came to the {place_name}.",
        ),
        happy=(
            "Now the picture of the {thing} was so good that {friend} clapped.",
            "The picture of the {thing} won the first prize.",
            "Everyone could see the {thing} in the picture, and {friend} put it on the wall.",
        ),
        sad=(
            "But the paint ran down, and the picture of the {thing} was spoiled.",
            "But nobody could see the {thing} in the picture.",
            "In the end {hero} tore up the picture of the {thing}.",
        ),
        morals=("Practice makes the master.", "Every artist starts small."),
    ),
    "bake": Plot(
        goal=(
            "{hero} wanted to bake {a_food} cake.",
            "{hero} invited the neighbors to eat {a_food} cake.",
            "{He} had read how to bake {a_food} cake.",
        ),
        trouble=(
            "But {hero} had only one {food} and no flour.",
            "But the oven was cold, and the {food} was still hard.",
            "But {hero} put salt on the {food} instead of sugar.",
        ),
        meet=(
            "{hero} asked {friend} the {friend_kind}, who had a kitchen {spot}.",
            "{friend} the {friend_kind}, a cook with a kitchen {spot}, smelled the smoke.",
            "{spot_start} there was the kitchen of {friend} the {friend_kind}, so {hero} went there.",
        ),
        ask=(
            '"What is missing in my {food} cake?" asked {hero}.',
            '"Could I have some flour?" asked {hero}.',
            '"The guests will be here soon," said {hero}.',
        ),
        yes=(
            '"Take all you need," said {friend}.',
            '"I will stir, and you will taste," said {friend}.',
            '"A spoon of honey will help," said {friend}.',
        ),
        no=(
            '"My kitchen is closed," said {friend}.',
            '"I need all of it for myself," said {friend}.',
            '"It is too late for that," said {friend}.',
        ),
        quiet=(
            "{friend} tied on an apron.",
            "{friend} gave {hero} a spoon and a bowl.",
            "{friend} tasted the dough and closed both eyes.",
        ),
        attempt=(
            "{hero} cut the {food} and lit the oven, and all of the {place_name} smelled of it.",
            "{hero} mixed the {food} with butter and milk, and everybody {place} smelled it.",
            "{hero} baked the {food} all morning, and guests came from the whole {place_name}.",
        ),
        happy=(
            "The {food} cake was soft and sweet, and {friend} took three pieces.",
            "The {food} cake was gone in a minute.",
            "{hero} and {friend} served the {food} cake, and everyone asked for more.",
        ),
        sad=(
            "But {hero} fell asleep, and the {food} cake burned.",
            "But the {food} cake was so hard that nobody could eat it.",
            "But {hero} dropped the {food} cake on the floor.",
        ),
        morals=("The best spice is a friend.", "A cook needs time and a good nose."),
    ),
    "stuck": Plot(
        goal=(
            "{hero} was playing with {his} {color} {thing}.",
            "{hero} threw {his} {color} {thing} up into the air for fun.",
            "{He} wanted to show {his} {color} {thing} to everybody.",
        ),
        trouble=(
            "Then the {thing} got stuck high up, and {hero} could not reach it.",
            "A gust blew the {thing} onto a roof, and {hero} was too small to get it.",
            "The {thing} landed on a branch, and {hero} could not climb so high.",
        ),
        meet=(
            "{friend} the {friend_kind} was working {spot} and heard {hero}.",
            "{hero} ran to {friend} the {friend_kind}, who sat {spot}.",
            "{spot_start} {hero} met {friend} the {friend_kind}.",
        ),
        ask=(
            '"My {thing} is up there!" said {hero}.',
            '"Can you reach the {thing}?" asked {hero}.',
            '"Do you have a ladder?" asked {hero}.',
        ),
        yes=(
            '"Climb on my back," said {friend}.',
            '"I have a long rope," said {friend}.',
            '"Together we are tall enough," said {friend}.',
        ),
        no=(
            '"That is much too high," said {friend}.',
            '"I am afraid of falling," said {friend}.',
            '"Let us wait for the wind," said {friend}.',
        ),
        quiet=(
            "{friend} looked up and brought a rope.",
            "{friend} and {hero} carried a ladder.",
            "{friend} let {hero} climb on top.",
        ),
        attempt=(
            "{hero} stretched as far as {he} could, and the whole {place_name} held its breath.",
            "Three times {hero} tried, and all the neighbors {place} watched.",
            "They pulled and shook, and everybody {place} heard it.",
        ),
        happy=(
            "At last {hero} caught the {thing} with one hand.",
            "The {thing} fell right into the arms of {hero}.",
            "{friend} gave a push, and {hero} had the {thing} again.",
        ),
        sad=(
            "But the {thing} stayed up there for ever.",
            "But the {thing} came down in two pieces.",
            "But then the wind carried the {thing} away.",
        ),
        morals=("Two are taller than one.", "Ask for help when you need it."),
    ),
    "found": Plot(
        goal=(
            "{hero} found {a_color} {thing} {spot}.",
            "There was {a_color} {thing} {spot}, and {hero} picked it up.",
            "{spot_start} {hero} saw {a_color} {thing} that nobody was using.",
        ),
        trouble=(
            "{hero} wanted to keep the {thing}, but it was not {his} own.",
            "{hero} liked the {thing}, but somebody must be missing it.",
            "But whose {thing} was it, and should {hero} give it back?",
        ),
        meet=(
            "Then {hero} heard that {friend} the {friend_kind} had lost something.",
            "The next day {hero} met {friend} the {friend_kind}, who was looking for something.",
            "{friend} the {friend_kind} walked around slowly and looked at the ground.",
        ),
        ask=(
            '"Have you seen my {thing}?" asked {friend}.',
            '"I lost my {thing} yesterday," said {friend}.',
            '"I have looked for my {thing} all day," said {friend}.',
        ),
        yes=(
            '"Is this it?" asked {hero}.',
            '"I kept it safe for you," said {hero}.',
            '"I have good news for you," said {hero}.',
        ),
        no=(
            '"I have not seen it," said {hero}, but that was not true.',
            '"No," said {hero} and looked away.',
            '"It is mine now," said {hero}.',
        ),
        quiet=(
            "{friend} did not see the {thing} in the bag of {hero}.",
            "{friend} asked everyone for the {thing}.",
            "{friend} had put up a note about the {thing}.",
        ),
        attempt=(
            "All night {hero} lay awake and thought of the {thing}, and the {place_name} was silent.",
            "{hero} walked around the {place_name} and did not know what to do with the {thing}.",
            "{hero} asked the oldest neighbor {place} about the {thing}.",
        ),
        happy=(
            "{hero} gave the {thing} back to {friend}.",
            "So {hero} put the {thing} into the hands of {friend}, and they became friends.",
            "{friend} got the {thing} back and let {hero} play with it every day.",
        ),
        sad=(
            "{hero} kept the {thing}, but it was no fun to play with it.",
            "{hero} hid the {thing}, and {friend} stopped playing with {him}.",
            "When {hero} wanted to give the {thing} back, {friend} had moved away.",
        ),
        morals=("What is not yours will not make you rich.", "The truth is lighter to carry."),
    ),
}
